"""The collector without Ray: it counts each event once and measures drift against the version's training data."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from chestai.monitoring.drift import MIN_IMAGES, DriftReference
from chestai.monitoring.features import OUTCOME, SCORED
from serve.db.outbox import OutboxCounts
from serve.inference.predictor import MonitoredFeatures
from serve.inference.rollout import ShadowComparison
from serve.monitoring import collector as module
from serve.monitoring.collector import EventCollector
from serve.monitoring.events import EventBatch, ImageEvent, RequestEvent
from serve.schemas.inference import ModelInfo
from tests.serve.support.monitoring import parse_metrics

SERVED = {
    version: ModelInfo(name="chestai", version=version, snapshot="snap-1", synthetic=True, runtime="torch fp32")
    for version in (1, 2)
}


def make_reference(images: int = 500) -> DriftReference:
    numbers = {"pixels.mean": draw(images, seed=1), "triage.score": draw(images, seed=2)}
    return DriftReference.of({**numbers, OUTCOME: [SCORED]})


def draw(images: int, seed: int, shift: float = 0.0) -> list[float]:
    return np.random.default_rng(seed).normal(100 + shift, 10, images).tolist()


def scored(mean: float, version: int = 1, bucket: str = "routine", score: float = 100.0) -> ImageEvent:
    observed: MonitoredFeatures = {"pixels.mean": mean, "triage.score": score}
    return ImageEvent(None, SERVED[version], observed, bucket, decode_s=0.002, forward_s=0.02)


def rejected(mean: float, version: int = 1) -> ImageEvent:
    return ImageEvent("out_of_distribution", SERVED[version], {"pixels.mean": mean})


def metrics(collector: EventCollector) -> dict[tuple[str, ...], float]:
    """Returns the metrics as `parse_metrics` does."""
    return parse_metrics(collector.metrics())


REQUESTS = [RequestEvent("/infer", "2xx", 0.03), RequestEvent("/infer", "4xx", 0.2), RequestEvent("none", "4xx", 0.001)]
BATCH = EventBatch(
    "a",
    0,
    REQUESTS,
    images=[scored(1, bucket="urgent"), scored(2), scored(3, 2), rejected(4), ImageEvent("truncated")],
    shadows=[
        ShadowComparison("scored", True, 0.02),
        ShadowComparison("scored", False, 0.4),
        ShadowComparison("skipped"),
    ],
    canary=["answered", "answered", "missed"],
    drafts=[("template", ""), ("template", "timeout"), ("llm", ""), ("llm", "")],
    dropped=7,
    outbox=OutboxCounts(9, 3, 0, 1, 3, 300),
)
EXPECTED = {
    ("chestai_requests_total", "/infer", "2xx"): 2,
    ("chestai_requests_total", "/infer", "4xx"): 1,
    ("chestai_requests_total", "none", "4xx"): 1,
    ("chestai_request_seconds_count", "/infer"): 3,
    ("chestai_request_seconds_sum", "/infer"): 0.26,
    ("chestai_request_seconds_bucket", "0.05", "/infer"): 2,
    ("chestai_images_total", "scored", ""): 3,
    ("chestai_images_total", "not_scored", "out_of_distribution"): 1,
    ("chestai_images_total", "not_scored", "truncated"): 1,
    ("chestai_answers_total", "urgent", "1"): 1,
    ("chestai_answers_total", "routine", "1"): 1,
    ("chestai_answers_total", "routine", "2"): 1,
    ("chestai_decode_seconds_count",): 3,
    ("chestai_forward_seconds_sum",): 0.06,
    ("chestai_report_drafts_total", "", "template"): 1,
    ("chestai_report_drafts_total", "timeout", "template"): 1,
    ("chestai_report_drafts_total", "", "llm"): 2,
    ("chestai_shadow_images_total", "true"): 1,
    ("chestai_shadow_images_total", "false"): 1,
    ("chestai_shadow_missed_total", "skipped"): 1,
    ("chestai_shadow_difference_sum",): 0.42,
    ("chestai_canary_images_total", "answered"): 2,
    ("chestai_canary_images_total", "missed"): 1,
    ("chestai_untold_total",): 7,
    ("chestai_state_waiting",): 5,
    ("chestai_state_waiting_bytes",): 320,
    ("chestai_database_away",): 1,
    ("chestai_state_rejected",): 1,
    ("chestai_model_info", "chestai", "torch fp32", "snap-1", "true", "1"): 1,
    ("chestai_drift_verdict", "unknown", "1"): 1,
    ("chestai_drift_verdict", "stable", "1"): 0,
}


def test_counts_each_batch_once() -> None:
    collector = EventCollector(lambda _: None)
    for _ in range(3):
        collector.collect(BATCH)
    collector.collect(EventBatch("b", 0, REQUESTS[:1], outbox=OutboxCounts(0, 2, 0, 0, 2, 20)))
    found = metrics(collector)
    assert {name: found.get(name) for name in EXPECTED} == pytest.approx(EXPECTED)


def test_drops_the_outbox_counts_of_a_silent_process(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = EventCollector(lambda _: None)
    collector.collect(EventBatch("a", 0, outbox=OutboxCounts(0, 2, 0, 0, 2, 20)))
    assert metrics(collector)["chestai_database_away",] == 1
    monkeypatch.setattr(module, "PROCESS_TIMEOUT_S", -1.0)
    assert metrics(collector)["chestai_database_away",] == 0


def test_drift_verdict_follows_the_images() -> None:
    collector = EventCollector(lambda version: make_reference() if version == 1 else None)
    collector.collect(EventBatch("a", 0, images=[scored(mean, score=mean) for mean in draw(200, 3)]))
    similar = collector.drift(1)
    assert similar.report.verdict == "stable" and similar.reason is None
    assert (similar.images, similar.total, similar.reference_images) == (
        200,
        200,
        500,
    ) and similar.since == collector.since
    brighter = [
        scored(mean, score=100) if at % 2 else rejected(mean) for at, mean in enumerate(draw(1000, 4, shift=20))
    ]
    collector.collect(EventBatch("a", 1, images=brighter))
    moved = {one.name: one for one in collector.drift(1).report.features}
    assert moved["pixels.mean"].verdict == "drifted" and moved["pixels.mean"].n == 1000
    assert moved["triage.score"].n == 500, "rejected images have no scores"
    assert collector.drift(1).images == 1000 and collector.drift(1).total == 1200
    found = metrics(collector)
    assert found["chestai_drift_psi", "pixels.mean", "1"] == pytest.approx(moved["pixels.mean"].psi)
    assert found["chestai_drift_verdict", "drifted", "1"] == 1 and found["chestai_drift_verdict", "stable", "1"] == 0


def test_drift_is_unknown_without_a_reference_or_with_few_images() -> None:
    collector = EventCollector(lambda version: make_reference() if version == 1 else None)
    collector.collect(
        EventBatch("a", 0, images=[scored(mean) for mean in draw(MIN_IMAGES - 1, 3)] + [scored(1, version=2)])
    )
    few, none = collector.drift(1), collector.drift(2)
    assert few.report.verdict == "unknown" and f"fewer than {MIN_IMAGES} images" in str(few.reason)
    assert none.report.verdict == "unknown" and "no drift reference" in str(none.reason)
    assert none.report.features == () and none.reference_images is None and none.images == 1


def test_unreadable_images_count_for_the_latest_version_that_scored() -> None:
    collector = EventCollector(lambda _: make_reference())
    collector.collect(
        EventBatch("a", 0, images=[ImageEvent("truncated"), scored(1, version=2), ImageEvent("truncated"), rejected(1)])
    )
    outcomes = {one.name: one.n for one in collector.drift(2).report.features}
    assert outcomes == {"pixels.mean": 1, "triage.score": 1, OUTCOME: 2}
    assert collector.drift(1).images == 1


def test_keeps_images_while_the_registry_is_down() -> None:
    results: list[Callable[[], DriftReference]] = [lambda: 1 / 0, make_reference]  # type: ignore[list-item, return-value]
    collector = EventCollector(lambda _: results.pop(0)())
    collector.collect(EventBatch("a", 0, images=[scored(mean) for mean in draw(80, 3)]))
    assert "could not be read yet" in str(collector.drift(1).reason) and len(results) == 1, (
        "the registry is not asked each time"
    )
    collector._versions[1].retry_at = 0.0
    assert collector.drift(1).report.features[0].n == 80 and not results


def test_slow_registry_blocks_only_one_thread() -> None:
    requested, proceed = threading.Event(), threading.Event()

    def load_slowly(version: int) -> DriftReference:
        requested.set()
        assert proceed.wait(30)
        return make_reference()

    collector = EventCollector(load_slowly)
    first = threading.Thread(target=collector.collect, args=(EventBatch("a", 0, images=[scored(1)]),))
    first.start()
    assert requested.wait(30)
    collector.collect(EventBatch("b", 0, images=[scored(2)] * 2))
    assert metrics(collector)["chestai_images_total", "scored", ""] == 3
    assert collector.drift(1).report.verdict == "unknown"
    proceed.set()
    first.join()
    assert collector.drift(1).report.features[0].n == 3
