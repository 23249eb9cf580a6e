"""Shadow predictions: written once per version, hidden from studies and the worklist, deleted with their image."""

from datetime import timedelta

from sqlalchemy import func, select

from serve.db import records
from serve.db.database import Database
from serve.db.models import ShadowRow
from serve.db.records import ShadowPrediction, record_prediction, record_shadow
from serve.db.retention import purge
from serve.db.worklist import page as worklist
from serve.db.worklist.page import WorklistFilter
from tests.serve.support.samples import NOON, make_image, make_prediction, sha


def make_shadow(name: object, score: float = 0.9, minutes: float = 0.0, version: int = 2) -> ShadowPrediction:
    return ShadowPrediction(
        image_id=sha(name),
        model_version=version,
        champion_version=1,
        probabilities={"Mass": score, "Hernia": None},
        score=score,
        bucket="urgent",
        at=NOON + timedelta(minutes=minutes),
    )


def stored_shadows(database: Database) -> list[tuple[str, int, float]]:
    with database.read_session() as session:
        rows = session.scalars(select(ShadowRow).order_by(ShadowRow.image_id, ShadowRow.model_version))
        return [(row.image_id, row.model_version, row.score) for row in rows]


def test_keeps_the_newest_of_each_version(database: Database) -> None:
    shadows = [make_shadow("a", score, at) for score, at in ((0.9, 1), (0.8, 2), (0.7, 0))]
    for _ in range(2):
        for prediction in [*shadows, make_shadow("a", 0.6, version=3)]:
            with database.write_session() as session:
                record_shadow(session, prediction)
    assert stored_shadows(database) == [(sha("a"), 2, 0.8), (sha("a"), 3, 0.6)]


def test_study_and_worklist_hide_shadows(database: Database) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image("a"), make_prediction("a", 0.1))
        record_shadow(session, make_shadow("a"))
        record_shadow(session, make_shadow("b"))
    with database.read_session() as session:
        (listed,) = worklist.load_page(session, WorklistFilter(), 60, 50).studies
        study = records.load_study(session, sha("a"))
        assert (listed.image_id, listed.model_version, listed.bucket) == (sha("a"), 1, "routine")
        assert study is not None and [one.model_version for one in study.predictions] == [1]
        assert records.load_study(session, sha("b")) is None


def test_purge_deletes_shadows_with_their_image_and_old_ones_without(database: Database) -> None:
    with database.write_session() as session:
        for name, minutes in (("old", 0), ("recent", 90)):
            record_prediction(session, make_image(name, minutes), make_prediction(name, 0.1, minutes))
            record_shadow(session, make_shadow(name, minutes=minutes))
        record_shadow(session, make_shadow("without image", minutes=0))
        record_shadow(session, make_shadow("not yet received", minutes=90))
    counts = purge(database, NOON + timedelta(minutes=60), "system", lambda uri: None)
    assert (counts.images, counts.shadows) == (1, 2)
    assert {image_id for image_id, _, _ in stored_shadows(database)} == {sha("recent"), sha("not yet received")}
    with database.read_session() as session:
        assert session.scalar(select(func.count()).select_from(ShadowRow)) == 2
