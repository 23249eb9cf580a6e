"""What the shadow said: written once, seen by nobody who reads studies, and gone with its image."""

from datetime import timedelta

from sqlalchemy import func, select

from serve.db import records, worklist
from serve.db.database import Database
from serve.db.models import ShadowRow
from serve.db.records import ShadowPrediction, record_prediction, record_shadow
from serve.db.retention import purge
from serve.db.worklist import WorklistFilter
from tests.serve.support.samples import NOON, image, prediction, sha


def shadowed(name: object, score: float = 0.9, minutes: float = 0.0, version: int = 2) -> ShadowPrediction:
    return ShadowPrediction(
        image_id=sha(name),
        model_version=version,
        champion_version=1,
        probabilities={"Mass": score, "Hernia": None},
        score=score,
        bucket="urgent",
        at=NOON + timedelta(minutes=minutes),
    )


def kept(database: Database) -> list[tuple[str, int, float]]:
    with database.reading() as session:
        rows = session.scalars(select(ShadowRow).order_by(ShadowRow.image_id, ShadowRow.model_version))
        return [(row.image_id, row.model_version, row.score) for row in rows]


def test_the_newest_of_a_version_stays(database: Database) -> None:
    answers = [shadowed("a", 0.9, 1), shadowed("a", 0.8, 2), shadowed("a", 0.7, 0), shadowed("a", 0.6, version=3)]
    for _ in range(2):
        for answer in answers:
            with database.writing() as session:
                record_shadow(session, answer)
    assert kept(database) == [(sha("a"), 2, 0.8), (sha("a"), 3, 0.6)]


def test_no_reader_sees_it(database: Database) -> None:
    with database.writing() as session:
        record_prediction(session, image("a"), prediction("a", 0.1))
        record_shadow(session, shadowed("a"))
        record_shadow(session, shadowed("b"))
    with database.reading() as session:
        (listed,) = worklist.page(session, WorklistFilter(), 60, 50).studies
        study = records.study(session, sha("a"))
        assert (listed.image_id, listed.model_version, listed.bucket) == (sha("a"), 1, "routine")
        assert study is not None and [one.model_version for one in study.predictions] == [1]
        assert records.study(session, sha("b")) is None


def test_it_goes_with_its_image(database: Database) -> None:
    with database.writing() as session:
        for name, minutes in (("old", 0), ("young", 90)):
            record_prediction(session, image(name, minutes), prediction(name, 0.1, minutes))
            record_shadow(session, shadowed(name, minutes=minutes))
        record_shadow(session, shadowed("gone before", minutes=0))
        record_shadow(session, shadowed("not yet there", minutes=90))
    done = purge(database, NOON + timedelta(minutes=60), "system", lambda uri: None)
    assert (done.images, done.shadows) == (1, 2)
    assert {one for one, _, _ in kept(database)} == {sha("young"), sha("not yet there")}
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ShadowRow)) == 2
