"""The worklist: order, filters and pages."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.db.reviews import record_review
from serve.db.worklist.page import MAX_PAGE_SIZE, WorklistEntry, WorklistFilter, load_page
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha

CAP = 60.0
LATER = NOON + timedelta(minutes=100)  # studies received before 12:40 have waited longer than the cap


def add(database: Database, name: object, minutes: float, score: float, **more: Any) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image(name, minutes, **more), make_prediction(name, score, minutes))


def review(database: Database, name: object, minutes: float) -> None:
    with database.write_session() as session:
        record_review(session, make_review(name, minutes))


def load(database: Database, limit: int = 50, **filters: Any) -> list[WorklistEntry]:
    with database.read_session() as session:
        return load_page(session, WorklistFilter(**filters), CAP, limit, at=LATER).studies


def test_lists_overdue_studies_first_then_by_urgency_then_by_age(database: Database) -> None:
    add(database, "young and urgent", 90, 0.95)
    add(database, "younger and as urgent", 91, 0.95)
    add(database, "young and soon", 80, 0.6)
    add(database, "just in time", 40.01, 0.1)
    add(database, "at the cap", 40, 0.05)
    add(database, "oldest", 1, 0.02, file_name="old.png", split="test")
    add(database, "old and urgent", 30, 0.99)
    order = ["oldest", "old and urgent", "at the cap", "young and urgent", "younger and as urgent", "young and soon"]
    found = load(database)
    assert [study.image_id for study in found] == [sha(name) for name in [*order, "just in time"]]
    assert [study.escalated for study in found] == [True] * 3 + [False] * 4
    first = found[0]
    assert (first.file_name, first.split, first.score, first.bucket) == ("old.png", "test", 0.02, "routine")
    assert first.drivers == [("Mass", 0.02)] and first.received_at == NOON + timedelta(minutes=1)


def test_reviewed_studies_are_not_escalated(database: Database) -> None:
    for name, minutes, score in (("old", 1, 0.1), ("old and read", 2, 0.2), ("young", 90, 0.9), ("read", 91, 0.95)):
        add(database, name, minutes, score)
    review(database, "old and read", 50)
    review(database, "read", 95)
    assert [study.image_id for study in load(database)] == [sha(n) for n in ("old", "read", "young", "old and read")]
    assert [study.image_id for study in load(database, reviewed=False)] == [sha("old"), sha("young")]
    done = load(database, reviewed=True)
    assert [study.image_id for study in done] == [sha("read"), sha("old and read")]
    assert [study.escalated for study in done] == [False, False]
    assert done[0].reviewed_at == NOON + timedelta(minutes=95)


def test_filters_by_bucket_finding_split_and_review(database: Database) -> None:
    for name, score, split in (("a", 0.9, "test"), ("b", 0.6, "val"), ("c", 0.1, "test"), ("d", 0.95, None)):
        add(database, name, 90, score, split=split)
    assert {study.image_id for study in load(database, bucket="urgent")} == {sha("a"), sha("d")}
    assert {study.image_id for study in load(database, finding="Mass")} == {sha("a"), sha("b"), sha("d")}
    assert load(database, finding="Hernia") == []
    assert {study.image_id for study in load(database, split="test")} == {sha("a"), sha("c")}
    assert {study.image_id for study in load(database, split="test", finding="Mass", reviewed=False)} == {sha("a")}


def load_one_by_one(database: Database, after_first: Callable[[], None], **filters: Any) -> list[str]:
    """Loads the list in pages of one row; calls `after_first` after the first page."""
    with database.read_session() as session:
        page = load_page(session, WorklistFilter(**filters), CAP, 1, at=LATER)
    after_first()
    studies = page.studies
    while page.cursor is not None:
        with database.read_session() as session:
            page = load_page(session, WorklistFilter(**filters), CAP, 1, page.cursor)
        studies = studies + page.studies
    return [study.image_id for study in studies]


def test_study_reviewed_between_pages_keeps_its_position(database: Database) -> None:
    for name, minutes, score in (("old", 1, 0.1), ("older", 0, 0.1), ("urgent", 90, 0.9), ("soon", 91, 0.6)):
        add(database, name, minutes, score)

    def change() -> None:
        for name in ("old", "urgent"):
            review(database, name, 105)

    order = ("older", "old", "urgent", "soon")
    assert load_one_by_one(database, change, reviewed=False) == [sha(name) for name in order]
    with database.read_session() as session:
        later = load_page(session, WorklistFilter(reviewed=False), CAP, at=NOON + timedelta(minutes=106)).studies
    assert [study.image_id for study in later] == [sha("older"), sha("soon")]


def test_study_scored_again_between_pages_is_not_missing(database: Database) -> None:
    for name, score in (("a", 0.9), ("b", 0.6), ("c", 0.2), ("d", 0.1)):
        add(database, name, 90, score)

    def change() -> None:
        with database.write_session() as session:
            record_prediction(session, make_image("c", 90), make_prediction("c", 0.99, 105))

    assert load_one_by_one(database, change) == [sha(name) for name in "abdc"]
    assert load_one_by_one(database, lambda: None)[0] == sha("a"), "as of a time before it was scored again"
    with database.read_session() as session:
        assert load_page(session, WorklistFilter(), 1e7).studies[0].image_id == sha("c")


Change = tuple[str, int, float]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["new", "read", "again"]), st.integers(0, 14), st.sampled_from([0.1, 0.6, 0.95])),
    max_size=4,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    studies=st.lists(
        st.tuples(st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.5, 0.8, 0.95, 1.0]), st.booleans()),
        min_size=3,
        max_size=15,
    ),
    limit=st.integers(1, 3),
    reviewed=st.sampled_from([None, False, True]),
    changes=st.lists(CHANGES, min_size=8, max_size=8),
)
def test_pages_list_each_study_once_whatever_changes_in_between(
    database: Database,
    studies: list[tuple[int, float, bool]],
    limit: int,
    reviewed: bool | None,
    changes: list[list[Change]],
) -> None:
    _empty(database)
    for number, (minutes, score, done) in enumerate(studies):
        add(database, number, minutes, score)
        if done:
            review(database, number, minutes + 1)
    at, filters = NOON + timedelta(minutes=101), WorklistFilter(reviewed=reviewed)
    expected = _expected(studies, reviewed)
    with database.read_session() as session:
        assert [study.image_id for study in load_page(session, filters, CAP, at=at).studies] == expected
    listed: list[str] = []
    scored_again: set[str] = set()
    cursor, turn = None, 0
    while turn == 0 or cursor is not None:
        with database.read_session() as session:
            page = load_page(session, filters, CAP, limit, cursor, at=at)
        assert len(page.studies) <= limit and (page.cursor is None or len(page.studies) == limit)
        listed += [study.image_id for study in page.studies]
        cursor = page.cursor
        if cursor is not None and turn < len(changes):
            scored_again |= _apply(database, changes[turn], turn, studies)
        turn += 1
    stable = [image_id for image_id in expected if image_id not in scored_again]
    assert [image_id for image_id in listed if image_id in stable] == stable, "once, in the order of the first page"
    assert set(expected) <= set(listed), "no study is missing, not even one that was scored again"


def _apply(database: Database, changes: list[Change], turn: int, studies: list[tuple[int, float, bool]]) -> set[str]:
    """Applies changes between two pages; returns the IDs of studies that were scored again."""
    scored_again = set()
    for kind, any_number, score in changes:
        number = any_number % len(studies)
        match kind:
            case "new":
                add(database, f"new {turn} {number}", 102 + turn, score)
            case "read":
                review(database, number, 103 + turn)
            case "again":
                image, prediction = make_image(number, studies[number][0]), make_prediction(number, score, 104 + turn)
                with database.write_session() as session:
                    record_prediction(session, image, prediction)
                scored_again.add(image.image_id)
    return scored_again


def _expected(studies: list[tuple[int, float, bool]], reviewed: bool | None) -> list[str]:
    """Returns the order at 13:41 with a cap of an hour, so studies received until 12:41 are overdue."""

    def key(number: int) -> tuple[Any, ...]:
        minutes, score, done = studies[number]
        if not done and minutes <= 41:
            return (0, minutes, sha(number))
        return (1, 0 if score >= 0.8 else 1 if score >= 0.5 else 2, -score, minutes, sha(number))

    numbers = [number for number, study in enumerate(studies) if reviewed is None or study[2] == reviewed]
    return [sha(number) for number in sorted(numbers, key=key)]


def _empty(database: Database) -> None:
    with database.write_session() as session:
        for table in ("positives", "worklist", "predictions", "reviews", "images"):
            session.execute(text(f"DELETE FROM {table}"))


def test_cursor_keeps_the_cap_of_its_first_page(database: Database) -> None:
    for number in range(4):
        add(database, number, 10 * number, 0.1)
    with database.read_session() as session:
        first = load_page(session, WorklistFilter(), CAP, limit=2, at=LATER)
        assert first.cursor is not None
        second = load_page(session, WorklistFilter(), 0.0, limit=2, cursor=first.cursor)
    assert [study.image_id for study in first.studies + second.studies] == [sha(number) for number in range(4)]
    assert second.cursor is None


def test_rejects_page_sizes_out_of_range(database: Database) -> None:
    for limit in (0, MAX_PAGE_SIZE + 1):
        with (
            pytest.raises(ValueError, match=f"limit={limit} must be from 1 to {MAX_PAGE_SIZE}"),
            database.read_session() as session,
        ):
            load_page(session, WorklistFilter(), CAP, limit)


def test_rejects_invalid_cursors(database: Database) -> None:
    before_year_one = '{"at":"0001-01-01T00:00:00Z","minutes":60}'
    invalid = ["", "x", "AAAA", "é", "eyJhIjoxfQ", base64.urlsafe_b64encode(before_year_one.encode()).decode()]
    for cursor in invalid:
        with pytest.raises(ValueError, match="the cursor is none"), database.read_session() as session:
            load_page(session, WorklistFilter(), CAP, 5, cursor)
