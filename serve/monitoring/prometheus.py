"""The metrics of `GET /metrics`, for Prometheus. Labels have few values: route patterns, codes, versions."""

from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from chestai.monitoring.drift import DriftResult
from chestai.monitoring.features import NOT_SCORED, SCORED
from serve.db.outbox import OutboxCounts
from serve.inference.rollout import ShadowComparison
from serve.monitoring.events import ImageEvent, RequestEvent
from serve.schemas.inference import ModelInfo

REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
DIFFERENCE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
VERDICTS = ("unknown", "stable", "moderate", "drifted")


class PrometheusMetrics:
    """Metrics of the whole endpoint since the monitor was started or restarted. For one thread at a time."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self._registry), partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self._requests = counter("chestai_requests", "Requests answered.", ["route", "status"])
        self._seconds = histogram(
            "chestai_request_seconds", "From the request to the end of the response.", ["route"], buckets=REQUEST_S
        )
        self._images = counter("chestai_images", "Images in requests.", ["outcome", "reason"])
        self._predictions = counter("chestai_answers", "Images scored.", ["version", "bucket"])
        self._decode = histogram("chestai_decode_seconds", "Decoding, including the wait for a core.", buckets=STEP_S)
        self._forward = histogram("chestai_forward_seconds", "Forward pass of the batch of an image.", buckets=STEP_S)
        self._dropped = counter("chestai_untold", "Events that were dropped and not counted.")
        self._alerts = counter("chestai_alerts", "Drift alerts.", ["outcome"])
        self._canary = counter("chestai_canary_images", "Images of the canary's share.", ["outcome"])
        self._drafts = counter("chestai_report_drafts", "Drafts of reports.", ["source", "reason"])
        self._shadow = counter("chestai_shadow_images", "Images scored by the shadow.", ["agrees"])
        self._missed = counter("chestai_shadow_missed", "Images that the shadow did not score.", ["reason"])
        self._difference = histogram(
            "chestai_shadow_difference", "Triage score of the shadow against the response.", buckets=DIFFERENCE
        )
        self._pending = gauge("chestai_state_waiting", "Writes that wait on disk for the database.")
        self._pending_bytes = gauge("chestai_state_waiting_bytes", "Their bytes.")
        self._database_down = gauge("chestai_database_away", "1 while writes wait for the database.")
        self._rejected = gauge("chestai_state_rejected", "Writes that the database refused during replay.")
        self._models = gauge(
            "chestai_model_info",
            "Versions that have scored images.",
            ["name", "version", "snapshot", "synthetic", "runtime"],
        )
        self._psi = gauge("chestai_drift_psi", "PSI of the window.", ["feature", "version"])
        self._verdict = gauge("chestai_drift_verdict", "1 for the verdict of the window.", ["version", "verdict"])

    def count_request(self, event: RequestEvent) -> None:
        self._requests.labels(event.route, event.status).inc()
        self._seconds.labels(event.route).observe(event.seconds)

    def count_image(self, event: ImageEvent) -> None:
        self._images.labels(SCORED if event.reason is None else NOT_SCORED, event.reason or "").inc()
        if event.model is not None and event.bucket is not None:
            self._predictions.labels(event.model.version, event.bucket).inc()
            self._set_model(event.model)
        if event.decode_s is not None:
            self._decode.observe(event.decode_s)
        if event.forward_s is not None:
            self._forward.observe(event.forward_s)

    def count_shadow(self, comparison: ShadowComparison) -> None:
        if comparison.outcome != "scored":
            self._missed.labels(comparison.outcome).inc()
            return
        self._shadow.labels(str(comparison.agrees).lower()).inc()
        self._difference.observe(comparison.difference)

    def count_canary(self, outcome: str) -> None:
        self._canary.labels(outcome).inc()

    def count_draft(self, source: str, reason: str) -> None:
        """
        Args:
            reason: Why the template stands although a language model was to be asked; empty otherwise.
        """
        self._drafts.labels(source, reason).inc()

    def count_dropped(self, count: int) -> None:
        self._dropped.inc(count)

    def count_alert(self, outcome: str) -> None:
        """
        Args:
            outcome: `raised`, `sent` or `failed`.
        """
        self._alerts.labels(outcome).inc()

    def set_outbox(self, counts: Sequence[OutboxCounts]) -> None:
        """Sets the gauges to the sums over all processes."""
        pending = sum(one.pending for one in counts)
        self._pending.set(pending)
        self._pending_bytes.set(sum(one.pending_bytes for one in counts))
        self._database_down.set(pending > 0)
        self._rejected.set(sum(one.rejected for one in counts))

    def set_drift(self, version: int, report: DriftResult) -> None:
        for feature in report.features:
            if feature.psi is not None:
                self._psi.labels(feature.name, version).set(feature.psi)
        for verdict in VERDICTS:
            self._verdict.labels(version, verdict).set(verdict == report.verdict)

    def render(self) -> bytes:
        """Returns Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _set_model(self, model: ModelInfo) -> None:
        synthetic = str(model.synthetic).lower()
        self._models.labels(model.name, model.version, model.snapshot, synthetic, model.runtime).set(1)
