"""What `GET /metrics` counts, for Prometheus. Labels have few values: routes as patterns, codes, versions."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from chestai.monitoring.drift import DriftResult
from chestai.monitoring.features import NOT_SCORED, SCORED
from serve.db.outbox import OutboxCounts
from serve.inference.rollout import ShadowComparison
from serve.monitoring.events import ImageEvent, RequestEvent
from serve.schemas import ModelInfo

REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
DIFFERENCE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
VERDICTS = ("unknown", "stable", "moderate", "drifted")


class PrometheusMetrics:
    """Counters and gauges of the whole endpoint, from the start or restart of the watch. For one thread at a time."""

    def __init__(self) -> None:
        self._registry = all_ = CollectorRegistry()
        self._requests = Counter("chestai_requests", "Requests answered.", ["route", "status"], registry=all_)
        self._seconds = Histogram(
            "chestai_request_seconds", "From request to end of answer.", ["route"], buckets=REQUEST_S, registry=all_
        )
        self._images = Counter("chestai_images", "Images asked for.", ["outcome", "reason"], registry=all_)
        self._answers = Counter("chestai_answers", "Images scored.", ["version", "bucket"], registry=all_)
        self._decode = Histogram(
            "chestai_decode_seconds", "Decoding, with the wait for a core.", buckets=STEP_S, registry=all_
        )
        self._forward = Histogram(
            "chestai_forward_seconds", "The batch that an image was in.", buckets=STEP_S, registry=all_
        )
        self._untold = Counter("chestai_untold", "Requests and images that were not counted.", registry=all_)
        self._alerts = Counter("chestai_alerts", "Alerts of drift.", ["outcome"], registry=all_)
        self._canary = Counter("chestai_canary_images", "Images of the canary's share.", ["outcome"], registry=all_)
        self._shadow = Counter("chestai_shadow_images", "Images scored in the shadow.", ["agrees"], registry=all_)
        self._missed = Counter("chestai_shadow_missed", "Images without a shadow.", ["reason"], registry=all_)
        self._difference = Histogram(
            "chestai_shadow_difference", "Of triage scores, to the answer.", buckets=DIFFERENCE, registry=all_
        )
        self._waiting = Gauge("chestai_state_waiting", "Writes that wait on disk for the database.", registry=all_)
        self._bytes = Gauge("chestai_state_waiting_bytes", "Their bytes.", registry=all_)
        self._away = Gauge("chestai_database_away", "1 while writes wait for the database.", registry=all_)
        self._rejected = Gauge("chestai_state_rejected", "Late writes that the database refused.", registry=all_)
        self._models = Gauge(
            "chestai_model_info",
            "Versions that have answered.",
            ["name", "version", "snapshot", "synthetic", "runtime"],
            registry=all_,
        )
        self._psi = Gauge("chestai_drift_psi", "PSI of the window.", ["feature", "version"], registry=all_)
        self._verdict = Gauge(
            "chestai_drift_verdict", "1 for the verdict of the window.", ["version", "verdict"], registry=all_
        )

    def request(self, one: RequestEvent) -> None:
        self._requests.labels(one.route, one.status).inc()
        self._seconds.labels(one.route).observe(one.seconds)

    def image(self, one: ImageEvent) -> None:
        self._images.labels(SCORED if one.reason is None else NOT_SCORED, one.reason or "").inc()
        if one.served is not None and one.bucket is not None:
            self._answers.labels(one.served.version, one.bucket).inc()
            self._model(one.served)
        if one.decode_s is not None:
            self._decode.observe(one.decode_s)
        if one.forward_s is not None:
            self._forward.observe(one.forward_s)

    def shadow(self, one: ShadowComparison) -> None:
        if one.outcome != "scored":
            self._missed.labels(one.outcome).inc()
            return
        self._shadow.labels(str(one.agrees).lower()).inc()
        self._difference.observe(one.difference)

    def canary(self, outcome: str) -> None:
        self._canary.labels(outcome).inc()

    def untold(self, count: int) -> None:
        self._untold.inc(count)

    def alert(self, outcome: str) -> None:
        """outcome: `raised`, `sent` or `failed`."""
        self._alerts.labels(outcome).inc()

    def state(self, counts: Iterable[OutboxCounts]) -> None:
        """Of all processes."""
        known = list(counts)
        self._waiting.set(sum(one.waiting for one in known))
        self._bytes.set(sum(one.waiting_bytes for one in known))
        self._away.set(any(one.waiting for one in known))
        self._rejected.set(sum(one.rejected for one in known))

    def drift(self, version: int, report: DriftResult) -> None:
        for feature in report.features:
            if feature.psi is not None:
                self._psi.labels(feature.name, version).set(feature.psi)
        for verdict in VERDICTS:
            self._verdict.labels(version, verdict).set(verdict == report.verdict)

    def exposed(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _model(self, one: ModelInfo) -> None:
        self._models.labels(one.name, one.version, one.snapshot, str(one.synthetic).lower(), one.runtime).set(1)
