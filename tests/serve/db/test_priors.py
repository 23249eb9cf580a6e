"""Priors, searches and numbers of the worklist."""

from datetime import date, timedelta
from typing import Any

import pytest

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.db.reviews import record_review
from serve.db.worklist.page import WorklistFilter, load_page
from serve.db.worklist.priors import MAX_PRIORS, load_priors
from serve.db.worklist.summary import BucketCounts, BucketSummary, summarise_worklist
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha


def add(database: Database, name: object, minutes: float = 0, score: float = 0.1, **more: Any) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image(name, minutes, **more), make_prediction(name, score, minutes))


def priors(database: Database, name: object) -> list[str] | None:
    with database.read_session() as session:
        found = load_priors(session, sha(name))
    return None if found is None else [prior.image_id for prior in found]


def test_priors_are_earlier_images_of_the_same_patient_newest_first(database: Database) -> None:
    for follow_up in (0, 2, 9, 10, 11):
        add(database, follow_up, patient_key="88", study_id=f"88_{follow_up}", source="nih", view="PA", age_years=61.0)
    add(database, "later", 5, patient_key="88", source="nih")
    add(database, "other patient", -5, patient_key="89", source="nih")
    add(database, "other corpus", -5, patient_key="88", source="chexpert")
    add(database, "nobody's", -5)
    assert priors(database, 10) == [sha(9), sha(2), sha(0)]
    assert priors(database, "later") == [sha(11), sha(10), sha(9), sha(2), sha(0)]
    assert priors(database, 0) == priors(database, "nobody's") == [] and priors(database, "unknown") is None
    with database.read_session() as session:
        (first, *_) = load_priors(session, sha(2)) or []
    assert (first.view, first.age_years, first.bucket, first.study_id) == ("PA", 61.0, "routine", "88_0")


def test_the_day_of_the_study_counts_before_that_of_the_receipt(database: Database) -> None:
    days = {"new": date(2024, 3, 1), "old": date(2020, 1, 2), "older": date(2019, 1, 2), "same": date(2024, 3, 1)}
    for minute, (name, day) in enumerate(days.items()):
        add(database, name, minute, patient_key="88", studied_on=day, prior=name != "new")
    add(database, "undated", -1, patient_key="88")
    assert priors(database, "new") == [sha("undated"), sha("same"), sha("old"), sha("older")]
    assert priors(database, "old") == [sha("older")] and priors(database, "older") == []


def test_priors_are_not_in_the_worklist_until_they_are_sent_to_be_read(database: Database) -> None:
    for name, score, prior in (("a", 0.9, True), ("b", 0.6, False), ("alone", 0.9, True)):
        add(database, name, score=score, prior=prior, study_id=None if name == "alone" else "1.2.3", patient_key="88")

    def listed(**filters: Any) -> list[tuple[str, int]]:
        with database.read_session() as session:
            found = load_page(session, WorklistFilter(**filters), 60, at=NOON).studies
        return [(entry.image_id, entry.images) for entry in found]

    assert listed() == listed(search="88") == listed(search="1.2.3") == [(sha("b"), 1)]
    with database.read_session() as session:
        assert summarise_worklist(session, 60, NOON).total == 1
    add(database, "a", 1, score=0.9, study_id="1.2.3", patient_key="88")
    add(database, "alone", 1, score=0.9, patient_key="88")
    assert {image_id for image_id, _ in listed()} == {sha("a"), sha("alone")}
    add(database, "a", 2, score=0.9, prior=True, study_id="1.2.3", patient_key="88")
    assert {image_id for image_id, _ in listed()} == {sha("a"), sha("alone")}, "a new image never becomes a prior"


def test_priors_are_limited(database: Database) -> None:
    for minute in range(MAX_PRIORS + 3):
        add(database, minute, minute, patient_key="88")
    assert priors(database, MAX_PRIORS + 2) == [sha(minute) for minute in range(MAX_PRIORS + 1, 1, -1)]


@pytest.mark.parametrize("text", [sha("b"), sha("b")[:6], "study 2", "patient 2", "b.png"])
def test_search_finds_by_image_study_patient_or_file(database: Database, text: str) -> None:
    for number, name in enumerate(("a", "b", "c")):
        study_id, patient_key = f"study {number + 1}", f"patient {number + 1}"
        add(database, name, study_id=study_id, patient_key=patient_key, file_name=f"{name}.png")
    with database.read_session() as session:
        found = load_page(session, WorklistFilter(search=text), 60).studies
        assert [study.image_id for study in found] == [sha("b")]
        assert (found[0].study_id, found[0].patient_key) == ("study 2", "patient 2")
        assert load_page(session, WorklistFilter(search=text[:4]), 60).studies == [], "no whole name"


def test_summary_counts_studies(database: Database) -> None:
    add(database, "read", 0, 0.9, split="test")
    add(database, "overdue", 0, 0.9, split="test")
    add(database, "soon", 50, 0.6, split="val")
    add(database, "routine", 50)
    with database.write_session() as session:
        record_review(session, make_review("read", 1))
    with database.read_session() as session:
        found = summarise_worklist(session, 60, NOON + timedelta(minutes=60))
    assert (found.total, found.unreviewed, found.escalated) == (4, 3, 1)
    assert found.buckets == BucketSummary(BucketCounts(2, 1), BucketCounts(1, 1), BucketCounts(1, 1))
    assert found.splits == {"test": 1, "val": 1} and found.findings == {"Mass": 2}
