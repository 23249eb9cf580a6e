"""Canary and shadow with fake scorers: which one scores, what is recorded, and that neither harms the response."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from chestai.imaging.preprocess import Grey
from chestai.monitoring.ood_detector import OodReason
from serve.api.app import create_app
from serve.api.services import ModelRouter, Services
from serve.db.models import ShadowRow
from serve.db.records import ShadowPrediction
from serve.inference import rollout
from serve.inference.memory_budget import MemoryBudget
from serve.inference.predictor import OodError, OodRejection, ScoreResult
from serve.inference.rollout import MAX_SHADOW_TASKS, Canary, Shadow, ShadowComparison, rollout_fraction
from serve.problems import ApiError, overloaded_error
from serve.schemas.inference import ModelInfo, Triage
from serve.schemas.operations import ModelCard
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import local_app
from tests.serve.support.samples import sha

GREY: Grey = np.zeros((8, 8), np.uint8)
MODEL = ModelInfo(name="chestai", version=2, snapshot="snap-1", synthetic=True, runtime="torch fp32")
IDS = [sha(number) for number in range(2000)]


def make_result(version: int = 2, score: float = 0.3) -> ScoreResult:
    return ScoreResult(
        model=MODEL.model_copy(update={"version": version}),
        probabilities={"Mass": score},
        thresholds={"Mass": None},
        triage=Triage(score=score, bucket="routine" if score < 0.5 else "soon", drivers=[]),
        evidence=np.zeros((1, 2, 2), np.float32),
        embedding=np.zeros(4, np.float32),
        thumbnail=bytes(256),
        forward_ms=1.0,
    )


class FakeScorer:
    """Returns a result, raises an exception, or hangs (None)."""

    def __init__(self, result: ScoreResult | Exception | None) -> None:
        self.result, self.calls = result, 0

    async def score(self, grey: Grey) -> ScoreResult:
        self.calls += 1
        if self.result is None:
            await asyncio.Event().wait()
        if isinstance(self.result, Exception):
            raise self.result
        assert self.result is not None
        return self.result

    async def card(self) -> ModelCard:
        raise NotImplementedError

    async def model_info(self) -> ModelInfo:
        return MODEL


def ood_error() -> OodError:
    return OodError(OodRejection(OodReason("out_of_distribution", "unusual"), MODEL, {}))


def make_canary(fake: FakeScorer, share: float = 0.2, deadline_s: float = 60.0) -> tuple[Canary, Counter[str]]:
    counted: Counter[str] = Counter()
    return Canary(fake, share, deadline_s, lambda outcome: counted.update([outcome])), counted


def score(canary: Canary, image_id: str) -> ScoreResult | None:
    return asyncio.run(canary.score(image_id, GREY))


def test_rollout_fraction_is_stable_and_uniform() -> None:
    parts = np.array([rollout_fraction(one) for one in IDS])
    assert [rollout_fraction(one) for one in IDS] == parts.tolist() and 0 <= parts.min() < parts.max() < 1
    counts, _ = np.histogram(parts, 10, (0, 1))
    assert counts.min() > 150 and counts.max() < 250


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_canary_scores_its_share_and_always_the_same_images(share: float) -> None:
    fake = FakeScorer(make_result())
    canary, counted = make_canary(fake, share)
    mine = [image_id for image_id in IDS if score(canary, image_id) is not None]
    assert abs(len(mine) / len(IDS) - share) < 0.03
    assert mine == [image_id for image_id in IDS if score(canary, image_id) is not None]
    assert counted["answered"] == 2 * len(mine) == fake.calls and not counted["missed"]


@pytest.mark.parametrize(
    "failure", [overloaded_error("busy"), RuntimeError("broken"), None], ids=["busy", "broken", "hangs"]
)
def test_canary_leaves_images_to_the_champion_after_a_failure(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeScorer(failure)
    canary, counted = make_canary(fake, 1.0, 0.02)
    assert [score(canary, image_id) for image_id in IDS[:5]] == [None] * 5
    assert counted == {"missed": 5} and fake.calls == 1, "it is paused for a while"
    canary._paused_until = 0.0
    fake.result = make_result()
    assert score(canary, IDS[0]) == fake.result and counted["answered"] == 1


def test_canary_rejection_is_final() -> None:
    canary, counted = make_canary(FakeScorer(ood_error()), 1.0)
    for image_id in IDS[:2]:
        with pytest.raises(ApiError) as raised:
            score(canary, image_id)
        assert raised.value.problem.code == "out_of_distribution"
    assert counted == {"answered": 2}, "it is not paused"


class RecordedShadow:
    """A shadow with what it recorded and counted."""

    def __init__(self, fake: FakeScorer, deadline_s: float = 60.0) -> None:
        self.recorded, self.counted = list[ShadowPrediction](), list[ShadowComparison]()
        self.memory = MemoryBudget(2**20)
        self.shadow = Shadow(fake, deadline_s, self.memory, self._record, self.counted.append)
        self.fails = False

    def _record(self, prediction: ShadowPrediction) -> None:
        assert threading.current_thread() is not threading.main_thread(), "it may block"
        if self.fails:
            raise OSError("no space left")
        self.recorded.append(prediction)

    def score(self, *results: ScoreResult) -> None:
        """Schedules images and waits until all are scored."""

        async def schedule_all() -> None:
            for number, result in enumerate(results):
                self.shadow.schedule(IDS[number], GREY, result)
                assert len(self.counted) == 0, "it returns at once"
            assert self.memory.used == len(results) * GREY.nbytes
            await asyncio.wait(self.shadow._tasks)
            assert self.memory.used == 0

        asyncio.run(schedule_all())


def test_shadow_records_its_prediction_and_compares_it() -> None:
    shadow = RecordedShadow(FakeScorer(make_result(2, 0.625)))
    shadow.score(make_result(1, 0.5), make_result(1, 0.125))
    assert [(one.image_id, one.model_version, one.champion_version) for one in shadow.recorded] == [
        (IDS[0], 2, 1),
        (IDS[1], 2, 1),
    ]
    assert (shadow.recorded[0].score, shadow.recorded[0].bucket, shadow.recorded[0].probabilities) == (
        0.625,
        "soon",
        {"Mass": 0.625},
    )
    assert shadow.counted == [
        ShadowComparison("scored", True, 0.125),
        ShadowComparison("scored", False, 0.5),
    ]


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (ood_error(), "refused"),
        (overloaded_error("busy"), "failed"),
        (ValueError("broken"), "failed"),
        (None, "failed"),
    ],
    ids=["out of distribution", "busy", "broken", "hangs"],
)
def test_shadow_counts_failures(result: Exception | None, outcome: str) -> None:
    shadow = RecordedShadow(FakeScorer(result), deadline_s=0.02)
    shadow.score(make_result(1))
    assert shadow.counted == [ShadowComparison(outcome)] and shadow.recorded == []


def test_shadow_counts_a_failed_recording() -> None:
    shadow = RecordedShadow(FakeScorer(make_result()))
    shadow.fails = True
    shadow.score(replace(make_result(1)))
    assert shadow.counted == [ShadowComparison("failed")]


def test_shadow_skips_images_when_it_falls_behind() -> None:
    counted, hanging = list[ShadowComparison](), FakeScorer(None)
    shadow = Shadow(hanging, 60.0, MemoryBudget(2**20), lambda prediction: None, counted.append)

    async def schedule() -> None:
        for image_id in IDS[: MAX_SHADOW_TASKS + 5]:
            shadow.schedule(image_id, GREY, make_result(1))
        await asyncio.sleep(0)
        assert (
            hanging.calls == MAX_SHADOW_TASKS == rollout.MAX_SHADOW_TASKS
            and counted == [ShadowComparison("skipped")] * 5
        )
        for task in shadow._tasks:
            task.cancel()

    asyncio.run(schedule())


def test_shadow_skips_images_for_which_requests_left_no_memory() -> None:
    counted, hanging = list[ShadowComparison](), FakeScorer(None)
    memory = MemoryBudget(3 * GREY.nbytes - 1)
    shadow = Shadow(hanging, 60.0, memory, lambda prediction: None, counted.append)

    async def schedule() -> None:
        for image_id in IDS[:3]:
            shadow.schedule(image_id, GREY, make_result(1))
        await asyncio.sleep(0)
        assert hanging.calls == 2 and counted == [ShadowComparison("skipped")]
        tasks = [*shadow._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)
        assert memory.used == 0

    asyncio.run(schedule())


def test_canary_and_shadow_receive_the_images_of_requests(tmp_path: Path) -> None:
    services: Services = local_app(tmp_path, False).state.services
    counted = list[ShadowComparison]()
    canary, shadow = FakeScorer(make_result(2, 0.75)), FakeScorer(make_result(3, 0.25))
    app = create_app(
        replace(
            services,
            model=ModelRouter(
                services.model.scorer,
                canary=Canary(canary, 1.0, 60.0, services.reporter.record_canary),
                shadow=Shadow(shadow, 60.0, services.memory, services.state.store.save_shadow, counted.append),
            ),
        )
    )
    with TestClient(app) as client:
        kind = {"content-type": "image/png"}
        assert (
            client.post("/infer", content=encode_image(make_films()[0]), headers=kind).json()["model"]["version"] == 2
        )
        assert client.post("/infer", content=b"nothing", headers=kind).status_code == 422
        end = time.monotonic() + 30
        while not counted and time.monotonic() < end:
            client.get("/health/live")
        assert counted == [ShadowComparison("scored", False, 0.5)] and (canary.calls, shadow.calls) == (1, 1)
        assert [study["model_version"] for study in client.get("/studies").json()["studies"]] == [2]
        assert 'chestai_canary_images_total{outcome="answered"} 1.0' in client.get("/metrics").text
    with services.state.store.database.read_session() as session:
        (row,) = session.scalars(select(ShadowRow))
        assert (row.model_version, row.champion_version, row.score, row.bucket) == (3, 2, 0.25, "routine")
