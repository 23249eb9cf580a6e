"""Canary and shadow over scorers in this process: who answers, what is kept, and that neither harms an answer."""

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
from serve.api.services import Services
from serve.db.models import ShadowRow
from serve.db.records import ShadowPrediction
from serve.inference import rollout
from serve.inference.predictor import OodError, OodRejection, ScoreResult
from serve.inference.rollout import MOST, Canary, Shadow, ShadowComparison, rollout_fraction
from serve.problems import ApiError, overloaded
from serve.schemas import ModelCard, ModelInfo, Triage
from tests.serve.support.forgery import encoded, films
from tests.serve.support.local import local_app
from tests.serve.support.samples import sha

GREY: Grey = np.zeros((8, 8), np.uint8)
SERVED = ModelInfo(name="chestai", version=2, snapshot="snap-1", synthetic=True, runtime="torch fp32")
IDS = [sha(number) for number in range(2000)]


def scored(version: int = 2, score: float = 0.3) -> ScoreResult:
    return ScoreResult(
        served=SERVED.model_copy(update={"version": version}),
        probabilities={"Mass": score},
        thresholds={"Mass": None},
        triage=Triage(score=score, bucket="routine" if score < 0.5 else "soon", drivers=[]),
        evidence=np.zeros((1, 2, 2), np.float32),
        forward_ms=1.0,
    )


class Fake:
    """Answers, raises or hangs."""

    def __init__(self, answer: ScoreResult | Exception | None) -> None:
        self.answer, self.asked = answer, 0

    async def score(self, grey: Grey) -> ScoreResult:
        self.asked += 1
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        assert self.answer is not None
        return self.answer

    async def card(self) -> ModelCard:
        raise NotImplementedError

    async def served(self) -> ModelInfo:
        return SERVED


def unlike() -> OodError:
    return OodError(OodRejection(OodReason("out_of_distribution", "strange"), SERVED, {}))


def canary(fake: Fake, share: float = 0.2, deadline_s: float = 60.0) -> tuple[Canary, Counter[str]]:
    counted: Counter[str] = Counter()
    return Canary(fake, share, deadline_s, lambda outcome: counted.update([outcome])), counted


def asked(one: Canary, image_id: str) -> ScoreResult | None:
    return asyncio.run(one.score(image_id, GREY))


def test_an_image_lies_where_it_lies() -> None:
    parts = np.array([rollout_fraction(one) for one in IDS])
    assert [rollout_fraction(one) for one in IDS] == parts.tolist() and 0 <= parts.min() < parts.max() < 1
    counts, _ = np.histogram(parts, 10, (0, 1))
    assert counts.min() > 150 and counts.max() < 250


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_canary_has_its_share_and_always_the_same(share: float) -> None:
    fake = Fake(scored())
    one, counted = canary(fake, share)
    mine = [image_id for image_id in IDS if asked(one, image_id) is not None]
    assert abs(len(mine) / len(IDS) - share) < 0.03
    assert mine == [image_id for image_id in IDS if asked(one, image_id) is not None]
    assert counted["answered"] == 2 * len(mine) == fake.asked and not counted["missed"]


@pytest.mark.parametrize("trouble", [overloaded("busy"), RuntimeError("broken"), None], ids=["busy", "broken", "hangs"])
def test_a_canary_that_does_not_answer_leaves_it_to_the_champion(
    trouble: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(trouble)
    one, counted = canary(fake, 1.0, 0.02)
    assert [asked(one, image_id) for image_id in IDS[:5]] == [None] * 5
    assert counted == {"missed": 5} and fake.asked == 1, "it is left alone for a while"
    one._rests_until = 0.0
    fake.answer = scored()
    assert asked(one, IDS[0]) == fake.answer and counted["answered"] == 1


def test_what_the_canary_refuses_is_refused() -> None:
    one, counted = canary(Fake(unlike()), 1.0)
    for image_id in IDS[:2]:
        with pytest.raises(ApiError) as refused:
            asked(one, image_id)
        assert refused.value.problem.code == "out_of_distribution"
    assert counted == {"answered": 2}, "it goes on being asked"


class Kept:
    """A shadow, what it kept and what it told."""

    def __init__(self, fake: Fake, deadline_s: float = 60.0) -> None:
        self.kept, self.told = list[ShadowPrediction](), list[ShadowComparison]()
        self.shadow = Shadow(fake, deadline_s, self._keep, self.told.append)
        self.refuses = False

    def _keep(self, shadowed: ShadowPrediction) -> None:
        assert threading.current_thread() is not threading.main_thread(), "it may block"
        if self.refuses:
            raise OSError("no space left")
        self.kept.append(shadowed)

    def follow(self, *answers: ScoreResult) -> None:
        """Until nothing is under way any more."""

        async def following() -> None:
            for number, answer in enumerate(answers):
                self.shadow.follow(IDS[number], GREY, answer)
                assert len(self.told) == 0, "it returns at once"
            await asyncio.wait(self.shadow._tasks)

        asyncio.run(following())


def test_the_shadow_keeps_what_it_would_have_said() -> None:
    one = Kept(Fake(scored(2, 0.625)))
    one.follow(scored(1, 0.5), scored(1, 0.125))
    assert [(kept.image_id, kept.model_version, kept.champion_version) for kept in one.kept] == [
        (IDS[0], 2, 1),
        (IDS[1], 2, 1),
    ]
    assert (one.kept[0].score, one.kept[0].bucket, one.kept[0].probabilities) == (0.625, "soon", {"Mass": 0.625})
    assert one.told == [
        ShadowComparison("scored", True, 0.125),
        ShadowComparison("scored", False, 0.5),
    ]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(unlike(), "refused"), (overloaded("busy"), "failed"), (ValueError("broken"), "failed"), (None, "failed")],
    ids=["unlike", "busy", "broken", "hangs"],
)
def test_what_goes_wrong_in_the_shadow_is_counted(answer: Exception | None, outcome: str) -> None:
    one = Kept(Fake(answer), deadline_s=0.02)
    one.follow(scored(1))
    assert one.told == [ShadowComparison(outcome)] and one.kept == []


def test_a_shadow_that_cannot_be_kept_has_failed() -> None:
    one = Kept(Fake(scored()))
    one.refuses = True
    one.follow(replace(scored(1)))
    assert one.told == [ShadowComparison("failed")]


def test_a_shadow_that_falls_behind_is_left_out() -> None:
    told, hanging = list[ShadowComparison](), Fake(None)
    shadow = Shadow(hanging, 60.0, lambda shadowed: None, told.append)

    async def follow() -> None:
        for image_id in IDS[: MOST + 5]:
            shadow.follow(image_id, GREY, scored(1))
        await asyncio.sleep(0)
        assert hanging.asked == MOST == rollout.MOST and told == [ShadowComparison("skipped")] * 5
        for task in shadow._tasks:
            task.cancel()

    asyncio.run(follow())


def test_over_the_application_both_see_what_was_asked(tmp_path: Path) -> None:
    services: Services = local_app(tmp_path, False).state.services
    told = list[ShadowComparison]()
    mine, other = Fake(scored(2, 0.75)), Fake(scored(3, 0.25))
    app = create_app(
        replace(
            services,
            canary=Canary(mine, 1.0, 60.0, services.notices.canary),
            shadow=Shadow(other, 60.0, services.store.shadow, told.append),
        )
    )
    with TestClient(app) as client:
        kind = {"content-type": "image/png"}
        assert client.post("/infer", content=encoded(films()[0]), headers=kind).json()["model"]["version"] == 2
        assert client.post("/infer", content=b"nothing", headers=kind).status_code == 422
        end = time.monotonic() + 30
        while not told and time.monotonic() < end:
            client.get("/health/live")
        assert told == [ShadowComparison("scored", False, 0.5)] and (mine.asked, other.asked) == (1, 1)
        assert [one["model_version"] for one in client.get("/studies").json()["studies"]] == [2]
        assert 'chestai_canary_images_total{outcome="answered"} 1.0' in client.get("/metrics").text
    with services.store.database.reading() as session:
        (row,) = session.scalars(select(ShadowRow))
        assert (row.model_version, row.champion_version, row.score, row.bucket) == (3, 2, 0.25, "routine")
