"""The watch without Ray: what is told is counted once, and held against the training of the version that answered."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from chestai.monitoring.drift import FEWEST, DriftReference
from chestai.monitoring.features import OUTCOME, SCORED
from serve.db.outbox import OutboxCounts
from serve.inference.predictor import MonitoredFeatures
from serve.inference.rollout import ShadowComparison
from serve.monitoring import collector as module
from serve.monitoring.collector import EventCollector
from serve.monitoring.events import EventBatch, ImageEvent, RequestEvent
from serve.schemas import ModelInfo
from tests.serve.support.prometheus import parsed

SERVED = {
    version: ModelInfo(name="chestai", version=version, snapshot="snap-1", synthetic=True, runtime="torch fp32")
    for version in (1, 2)
}


def reference(images: int = 500) -> DriftReference:
    numbers = {"pixels.mean": drawn(images, seed=1), "triage.score": drawn(images, seed=2)}
    return DriftReference.of({**numbers, OUTCOME: [SCORED]})


def drawn(images: int, seed: int, more: float = 0.0) -> list[float]:
    return np.random.default_rng(seed).normal(100 + more, 10, images).tolist()


def scored(mean: float, version: int = 1, bucket: str = "routine", score: float = 100.0) -> ImageEvent:
    observed: MonitoredFeatures = {"pixels.mean": mean, "triage.score": score}
    return ImageEvent(None, SERVED[version], observed, bucket, decode_s=0.002, forward_s=0.02)


def refused(mean: float, version: int = 1) -> ImageEvent:
    return ImageEvent("out_of_distribution", SERVED[version], {"pixels.mean": mean})


def exposed(watching: EventCollector) -> dict[tuple[str, ...], float]:
    """As `parsed`."""
    return parsed(watching.metrics())


def test_what_is_told_is_counted_once() -> None:
    watching = EventCollector(lambda _: None)
    requests = [
        RequestEvent("/infer", "2xx", 0.03),
        RequestEvent("/infer", "4xx", 0.2),
        RequestEvent("none", "4xx", 0.001),
    ]
    images = [scored(1, bucket="urgent"), scored(2), scored(3, 2), refused(4), ImageEvent("truncated")]
    told = EventBatch(
        "a",
        0,
        requests,
        images,
        shadows=[
            ShadowComparison("scored", True, 0.02),
            ShadowComparison("scored", False, 0.4),
            ShadowComparison("skipped"),
        ],
        canary=["answered", "answered", "missed"],
        untold=7,
        state=OutboxCounts(9, 3, 0, 1, 3, 300),
    )
    for _ in range(3):
        watching.tell(told)
    watching.tell(EventBatch("b", 0, requests[:1], state=OutboxCounts(0, 2, 0, 0, 2, 20)))
    found = exposed(watching)
    expected = {
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
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)


def test_a_process_that_fell_silent_has_no_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    watching = EventCollector(lambda _: None)
    watching.tell(EventBatch("a", 0, state=OutboxCounts(0, 2, 0, 0, 2, 20)))
    assert exposed(watching)["chestai_database_away",] == 1
    monkeypatch.setattr(module, "SILENT_S", -1.0)
    assert exposed(watching)["chestai_database_away",] == 0


def test_images_like_the_training_are_stable_and_others_are_not() -> None:
    watching = EventCollector(lambda version: reference() if version == 1 else None)
    watching.tell(EventBatch("a", 0, images=[scored(mean, score=mean) for mean in drawn(200, 3)]))
    alike = watching.drift(1)
    assert alike.report.verdict == "stable" and alike.reason is None
    assert (alike.images, alike.total, alike.reference_images) == (200, 200, 500) and alike.since == watching.since
    brighter = [scored(mean, score=100) if at % 2 else refused(mean) for at, mean in enumerate(drawn(1000, 4, more=20))]
    watching.tell(EventBatch("a", 1, images=brighter))
    moved = {one.name: one for one in watching.drift(1).report.features}
    assert moved["pixels.mean"].verdict == "drifted" and moved["pixels.mean"].n == 1000
    assert moved["triage.score"].n == 500, "what was refused has no scores"
    assert watching.drift(1).images == 1000 and watching.drift(1).total == 1200
    found = exposed(watching)
    assert found["chestai_drift_psi", "pixels.mean", "1"] == pytest.approx(moved["pixels.mean"].psi)
    assert found["chestai_drift_verdict", "drifted", "1"] == 1 and found["chestai_drift_verdict", "stable", "1"] == 0


def test_without_a_reference_or_with_few_images_nothing_is_said() -> None:
    watching = EventCollector(lambda version: reference() if version == 1 else None)
    watching.tell(EventBatch("a", 0, images=[scored(mean) for mean in drawn(FEWEST - 1, 3)] + [scored(1, version=2)]))
    few, none = watching.drift(1), watching.drift(2)
    assert few.report.verdict == "unknown" and f"fewer than {FEWEST} images" in str(few.reason)
    assert none.report.verdict == "unknown" and "no drift reference" in str(none.reason)
    assert none.report.features == () and none.reference_images is None and none.images == 1


def test_what_cannot_be_read_counts_where_the_last_answer_came_from() -> None:
    watching = EventCollector(lambda _: reference())
    watching.tell(
        EventBatch("a", 0, images=[ImageEvent("truncated"), scored(1, version=2), ImageEvent("truncated"), refused(1)])
    )
    outcomes = {one.name: one.n for one in watching.drift(2).report.features}
    assert outcomes == {"pixels.mean": 1, "triage.score": 1, OUTCOME: 2}
    assert watching.drift(1).images == 1


def test_images_wait_for_a_registry_that_is_away() -> None:
    answers: list[Callable[[], DriftReference]] = [lambda: 1 / 0, reference]  # type: ignore[list-item, return-value]
    watching = EventCollector(lambda _: answers.pop(0)())
    watching.tell(EventBatch("a", 0, images=[scored(mean) for mean in drawn(80, 3)]))
    assert "could not be read yet" in str(watching.drift(1).reason) and len(answers) == 1, "it is not asked each time"
    watching._versions[1].retry_at = 0.0
    assert watching.drift(1).report.features[0].n == 80 and not answers


def test_a_slow_registry_holds_up_one_thread_at_most() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(version: int) -> DriftReference:
        asked.set()
        assert go_on.wait(30)
        return reference()

    watching = EventCollector(slow)
    first = threading.Thread(target=watching.tell, args=(EventBatch("a", 0, images=[scored(1)]),))
    first.start()
    assert asked.wait(30)
    watching.tell(EventBatch("b", 0, images=[scored(2)] * 2))
    assert exposed(watching)["chestai_images_total", "scored", ""] == 3
    assert watching.drift(1).report.verdict == "unknown"
    go_on.set()
    first.join()
    assert watching.drift(1).report.features[0].n == 3
