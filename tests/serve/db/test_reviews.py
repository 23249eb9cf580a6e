"""Verdicts: which stand, when a study counts as reviewed, and how often readers agree with the model."""

from datetime import timedelta
from itertools import permutations

import pytest

from serve.db.database import Database
from serve.db.models import WorklistRow
from serve.db.records import Review, record_prediction
from serve.db.reviews import VerdictCounts, measure_agreement, record_review
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha

COUNTS = {"TP": 0, "FP": 0, "TN": 0, "FN": 0, "unsure": 0}


def save(database: Database, *reviews: Review) -> None:
    with database.write_session() as session:
        for review in reviews:
            record_review(session, review)


def add_study(database: Database, name: str) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image(name), make_prediction(name, 0.9))


def reviewed_minutes(database: Database, name: str) -> float | None:
    with database.read_session() as session:
        at = session.get_one(WorklistRow, sha(name)).reviewed_at
    return None if at is None else (at - NOON) / timedelta(minutes=1)


def test_withdrawn_verdict_makes_a_study_unreviewed_in_any_order_of_arrival(database: Database) -> None:
    given = make_review("a", 1, review_id="1"), make_review("a", 2, verdict="withdrawn", review_id="2")
    for number, order in enumerate(permutations(given)):
        name = f"study {number}"
        add_study(database, name)
        renamed = [
            review.model_copy(update={"image_id": sha(name), "review_id": f"{number}{review.review_id}"})
            for review in order
        ]
        save(database, *renamed)
        assert reviewed_minutes(database, name) is None
        save(database, make_review(name, 5))
        assert reviewed_minutes(database, name) == 1, "reviewed again: since the first verdict of this reader"


def test_verdict_on_another_version_stands_when_one_is_withdrawn(database: Database) -> None:
    add_study(database, "a")
    save(database, make_review("a", 1), make_review("a", 2, model_version=2))
    save(database, make_review("a", 3, model_version=2, verdict="withdrawn"))
    assert reviewed_minutes(database, "a") == 1


def test_another_reader_or_finding_keeps_a_study_reviewed(database: Database) -> None:
    add_study(database, "a")
    save(database, make_review("a", 1), make_review("a", 2, reviewer="omar"), make_review("a", 3, finding="Hernia"))
    save(database, make_review("a", 4, verdict="withdrawn"))
    assert reviewed_minutes(database, "a") == 2
    save(database, make_review("a", 5, reviewer="omar", verdict="withdrawn"))
    assert reviewed_minutes(database, "a") == 3
    save(database, make_review("a", 6, finding="Hernia", verdict="withdrawn"))
    assert reviewed_minutes(database, "a") is None


def test_study_scored_after_its_reviews_knows_them(database: Database) -> None:
    save(database, make_review("a", 1), make_review("b", 1), make_review("b", 2, verdict="withdrawn"))
    for name in ("a", "b"):
        add_study(database, name)
    assert (reviewed_minutes(database, "a"), reviewed_minutes(database, "b")) == (1, None)


def test_agreement_counts_the_latest_verdict_of_each_reader(database: Database) -> None:
    day = 24 * 60
    save(
        database,
        make_review("a", 0, verdict="FP"),
        make_review("a", 1, verdict="TP"),  # replaces the first
        make_review("a", 2, verdict="FP", reviewer="omar"),
        make_review("b", 3, verdict="TN", finding="Hernia", model_version=2),
        make_review("b", day, verdict="unsure"),
        make_review("c", day, verdict="TP"),
        make_review("c", day + 1, verdict="withdrawn"),
        make_review("d", -1, verdict="FN"),  # before the time in question
    )
    with database.read_session() as session:
        agreement = measure_agreement(session, NOON)
    assert [(one.finding, one.model_version, one.verdicts) for one in agreement.findings] == [
        ("Hernia", 2, VerdictCounts(**{**COUNTS, "TN": 1}, agreement=1.0)),
        ("Mass", 1, VerdictCounts(**{**COUNTS, "TP": 1, "FP": 1, "unsure": 1}, agreement=0.5)),
    ]
    assert [(one.reviewer, one.verdicts.agreement) for one in agreement.readers] == [("omar", 0.0), ("rita", 1.0)]
    assert [(one.day, one.verdicts.agreement) for one in agreement.days] == [
        ("2026-03-01", pytest.approx(2 / 3)),
        ("2026-03-02", None),
    ]
