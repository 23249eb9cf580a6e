"""Records are read as they were written, also when a write is repeated, late or out of order."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy import null as sql_null

from serve.db.database import Database
from serve.db.models import PositiveRow, PredictionRow, WorklistRow
from serve.db.records import (
    Job,
    Label,
    Prediction,
    load_job,
    load_study,
    load_unfinished_jobs,
    record_job,
    record_labels,
    record_prediction,
)
from serve.db.reviews import record_review
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha


def test_load_study_returns_what_was_recorded(database: Database) -> None:
    received = make_image("a", 5, file_name="chest 1.png", view="PA", height=2, width=3, split="test", uri="s3://b/k")
    first, second = make_prediction("a", 0.91, 5), make_prediction("a", 0.2, 6, version=2)
    verdicts = [
        make_review("a", 7, verdict="FP", notes="a nipple, «not» a mass"),
        make_review("a", 8, finding="Hernia"),
    ]
    labels = (Label(finding="Mass", source="nih", value=1.0), Label(finding="Hernia", source="site", value=None))
    with database.write_session() as session:
        record_prediction(session, received, first)
        record_prediction(session, received, second)
        for verdict in verdicts:
            record_review(session, verdict)
        record_labels(session, sha("a"), labels)
    with database.read_session() as session:
        found = load_study(session, sha("a"))
        assert load_study(session, sha("b")) is None
    assert found is not None and found.image == received
    assert found.predictions == (second, first) and found.reviews == tuple(verdicts) and found.labels == labels
    assert found.predictions[1].probabilities == {"Mass": 0.91, "Hernia": None}


def test_prediction_of_a_version_without_confidence_has_nulls_in_the_database(database: Database) -> None:
    """As rows of earlier releases have them: no JSON `null`."""
    versions = [make_prediction("a", version=version, confidence=None, label_sets=None) for version in (1, 2)]
    with database.write_session() as session:
        for prediction in (*versions, make_prediction("a", version=3)):
            record_prediction(session, make_image("a"), prediction)
    with database.read_session() as session:
        for column in (PredictionRow.confidence, PredictionRow.label_sets):
            nulls = select(PredictionRow.model_version).where(column.is_(sql_null()))
            assert set(session.scalars(nulls)) == {1, 2}
        found = load_study(session, sha("a"))
    assert found is not None and all(prediction in found.predictions for prediction in versions)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_keeps_the_newest_prediction_in_any_order_and_once(database: Database, order: tuple[int, ...]) -> None:
    predictions = [make_prediction("a", 0.9, 1), make_prediction("a", 0.6, 2), make_prediction("a", 0.3, 3)]
    images = [make_image("a", 1, file_name="x.png"), make_image("a", 2), make_image("a", 3, view="AP")]
    for number in (*order, *order):
        with database.write_session() as session:
            record_prediction(session, images[number], predictions[number])
    with database.read_session() as session:
        found = load_study(session, sha("a"))
        row = session.scalars(select(WorklistRow)).one()
        positives = session.scalars(select(PositiveRow.finding)).all()
    assert found is not None and found.predictions == (predictions[2],)
    assert found.image == make_image("a", 1, file_name="x.png", view="AP")
    assert (row.urgency, row.falling, row.received_at, positives) == (2, -0.3, images[0].received_at, [])


def test_worklist_row_follows_the_newest_prediction_of_any_version(database: Database) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image("a"), make_prediction("a", 0.2, 1, version=7))
        record_prediction(
            session, make_image("a"), make_prediction("a", 0.95, 2, version=3, positives=("Mass", "Mass"))
        )
        record_prediction(session, make_image("a"), make_prediction("a", 0.1, 1.5, version=9))
    with database.read_session() as session:
        row = session.scalars(select(WorklistRow)).one()
        assert session.scalars(select(PositiveRow.finding)).all() == ["Mass"]
        assert len(session.scalars(select(PredictionRow)).all()) == 3
    assert (row.model_version, row.urgency, row.falling) == (3, 0, -0.95)
    assert row.moved_at is not None


def test_review_may_precede_its_image_and_repeat(database: Database) -> None:
    late, early = make_review("a", 9), make_review("a", 4)
    for verdict in (late, early, early.model_copy(update={"verdict": "FN"})):
        with database.write_session() as session:
            record_review(session, verdict)
    with database.write_session() as session:
        record_prediction(session, make_image("a"), make_prediction("a"))
    with database.read_session() as session:
        assert session.scalars(select(WorklistRow.reviewed_at)).one() == early.at
        found = load_study(session, sha("a"))
    assert found is not None and found.reviews == (early, late), "a review with a stored ID is ignored"
    with database.write_session() as session:
        record_review(session, make_review("a", 2))
    with database.read_session() as session:
        assert session.scalars(select(WorklistRow.reviewed_at)).one() == NOON + timedelta(minutes=2)


def test_threads_write_the_same_images_at_once(database: Database) -> None:
    barrier = threading.Barrier(6)

    def write(number: int) -> None:
        barrier.wait()
        for step in range(5):
            with database.write_session() as session:
                minutes = number + 10 * step
                record_prediction(session, make_image(step), make_prediction(step, minutes / 100, minutes, number % 2))
                record_review(session, make_review(step, minutes))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    with database.read_session() as session:
        counts = [session.scalar(select(func.count()).select_from(table)) for table in (PredictionRow, WorklistRow)]
        rows = session.execute(select(WorklistRow.image_id, WorklistRow.falling, WorklistRow.reviewed_at)).all()
    assert counts == [10, 5]
    expected = {sha(step): (-(5 + 10 * step) / 100, NOON + timedelta(minutes=10 * step)) for step in range(5)}
    assert {image_id: (falling, reviewed) for image_id, falling, reviewed in rows} == expected


def test_job_never_goes_back(database: Database) -> None:
    queued = Job(kind="batch", owner="rita", total=10, created_at=NOON, updated_at=NOON)

    def at(minutes: float, **changes: Any) -> Job:
        return queued.model_copy(update={"updated_at": NOON + timedelta(minutes=minutes), **changes})

    half, cancelled = at(2, state="running", done=5), at(3, state="cancelled", done=6)
    for job in (queued, half, at(1, state="running", done=2)):
        with database.write_session() as session:
            record_job(session, job)
    with database.read_session() as session:
        assert load_job(session, queued.job_id) == half and load_unfinished_jobs(session) == [half]
    for job in (cancelled, at(4, state="running", done=9)):
        with database.write_session() as session:
            record_job(session, job)
    with database.read_session() as session:
        assert load_job(session, queued.job_id) == cancelled and load_unfinished_jobs(session) == []
        assert load_job(session, "none") is None


def test_label_replaces_the_earlier_one_of_its_source(database: Database) -> None:
    for value in (1.0, 0.0):
        with database.write_session() as session:
            record_labels(session, sha("a"), [Label(finding="Mass", source="nih", value=value)])
    with database.write_session() as session:
        record_prediction(session, make_image("a"), make_prediction("a"))
    with database.read_session() as session:
        found = load_study(session, sha("a"))
    assert found is not None and found.labels == (Label(finding="Mass", source="nih", value=0.0),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": float("nan")},
        {"score": 1.5},
        {"probabilities": {"Mass": float("inf")}},
        {"image_id": "../../etc/passwd"},
        {"bucket": "tomorrow"},
        {"at": NOON.replace(tzinfo=None)},
    ],
)
def test_rejects_invalid_predictions(wrong: dict[str, Any]) -> None:
    valid = make_prediction("a").model_dump()
    Prediction.model_validate(valid)
    with pytest.raises(ValidationError):
        Prediction.model_validate({**valid, **wrong})


def test_rejects_the_prediction_of_another_image(database: Database) -> None:
    with pytest.raises(ValueError, match="for image"), database.write_session() as session:
        record_prediction(session, make_image("a"), make_prediction("b"))
