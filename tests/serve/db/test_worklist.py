"""The worklist's order, its filters and its pages."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import text

from serve.db.database import Database
from serve.db.records import record_prediction, record_review
from serve.db.worklist import MAX_PAGE_SIZE, WorklistEntry, WorklistFilter, load_page
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha

CAP = 60.0
LATER = NOON + timedelta(minutes=100)  # who came before 12:40 has waited for too long


def add(database: Database, name: object, minutes: float, score: float, **more: Any) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image(name, minutes, **more), make_prediction(name, score, minutes))


def read(database: Database, name: object, minutes: float) -> None:
    with database.write_session() as session:
        record_review(session, make_review(name, minutes))


def listed(database: Database, limit: int = 50, **wanted: Any) -> list[WorklistEntry]:
    with database.read_session() as session:
        return load_page(session, WorklistFilter(**wanted), CAP, limit, at=LATER).studies


def test_who_waited_too_long_then_by_urgency_then_by_age(database: Database) -> None:
    add(database, "young and urgent", 90, 0.95)
    add(database, "younger and as urgent", 91, 0.95)
    add(database, "young and soon", 80, 0.6)
    add(database, "just in time", 40.01, 0.1)
    add(database, "at the cap", 40, 0.05)
    add(database, "oldest", 1, 0.02, file_name="old.png", split="test")
    add(database, "old and urgent", 30, 0.99)
    order = ["oldest", "old and urgent", "at the cap", "young and urgent", "younger and as urgent", "young and soon"]
    found = listed(database)
    assert [one.image_id for one in found] == [sha(name) for name in [*order, "just in time"]]
    assert [one.escalated for one in found] == [True] * 3 + [False] * 4
    first = found[0]
    assert (first.file_name, first.split, first.score, first.bucket) == ("old.png", "test", 0.02, "routine")
    assert first.drivers == [("Mass", 0.02)] and first.received_at == NOON + timedelta(minutes=1)


def test_what_is_read_waits_no_longer(database: Database) -> None:
    for name, minutes, score in (("old", 1, 0.1), ("old and read", 2, 0.2), ("young", 90, 0.9), ("read", 91, 0.95)):
        add(database, name, minutes, score)
    read(database, "old and read", 50)
    read(database, "read", 95)
    assert [one.image_id for one in listed(database)] == [sha(n) for n in ("old", "read", "young", "old and read")]
    assert [one.image_id for one in listed(database, reviewed=False)] == [sha("old"), sha("young")]
    done = listed(database, reviewed=True)
    assert [one.image_id for one in done] == [sha("read"), sha("old and read")]
    assert [one.escalated for one in done] == [False, False]
    assert done[0].reviewed_at == NOON + timedelta(minutes=95)


def test_filters(database: Database) -> None:
    for name, score, split in (("a", 0.9, "test"), ("b", 0.6, "val"), ("c", 0.1, "test"), ("d", 0.95, None)):
        add(database, name, 90, score, split=split)
    assert {one.image_id for one in listed(database, bucket="urgent")} == {sha("a"), sha("d")}
    assert {one.image_id for one in listed(database, finding="Mass")} == {sha("a"), sha("b"), sha("d")}
    assert listed(database, finding="Hernia") == []
    assert {one.image_id for one in listed(database, split="test")} == {sha("a"), sha("c")}
    assert {one.image_id for one in listed(database, split="test", finding="Mass", reviewed=False)} == {sha("a")}


def pages(database: Database, between: Callable[[], None], **wanted: Any) -> list[str]:
    """The list row by row; something happens after the first."""
    with database.read_session() as session:
        got = load_page(session, WorklistFilter(**wanted), CAP, 1, at=LATER)
    between()
    seen = got.studies
    while got.cursor is not None:
        with database.read_session() as session:
            got = load_page(session, WorklistFilter(**wanted), CAP, 1, got.cursor)
        seen = seen + got.studies
    return [one.image_id for one in seen]


def test_what_is_read_meanwhile_keeps_its_place(database: Database) -> None:
    for name, minutes, score in (("old", 1, 0.1), ("older", 0, 0.1), ("urgent", 90, 0.9), ("soon", 91, 0.6)):
        add(database, name, minutes, score)

    def meanwhile() -> None:
        for name in ("old", "urgent"):
            read(database, name, 105)

    assert pages(database, meanwhile, reviewed=False) == [sha(name) for name in ("older", "old", "urgent", "soon")]
    with database.read_session() as session:
        later = load_page(session, WorklistFilter(reviewed=False), CAP, at=NOON + timedelta(minutes=106)).studies
    assert [one.image_id for one in later] == [sha("older"), sha("soon")]


def test_what_is_scored_anew_meanwhile_is_not_left_out(database: Database) -> None:
    for name, score in (("a", 0.9), ("b", 0.6), ("c", 0.2), ("d", 0.1)):
        add(database, name, 90, score)

    def meanwhile() -> None:
        with database.write_session() as session:
            record_prediction(session, make_image("c", 90), make_prediction("c", 0.99, 105))

    assert pages(database, meanwhile) == [sha(name) for name in "abdc"]
    assert pages(database, lambda: None)[0] == sha("a"), "as of a moment before it was scored anew"
    with database.read_session() as session:
        assert load_page(session, WorklistFilter(), 1e7).studies[0].image_id == sha("c")


Change = tuple[str, int, float]
CHANGES = some.lists(
    some.tuples(some.sampled_from(["new", "read", "again"]), some.integers(0, 14), some.sampled_from([0.1, 0.6, 0.95])),
    max_size=4,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    studies=some.lists(
        some.tuples(some.integers(0, 99), some.sampled_from([0.0, 0.1, 0.5, 0.8, 0.95, 1.0]), some.booleans()),
        min_size=3,
        max_size=15,
    ),
    limit=some.integers(1, 3),
    reviewed=some.sampled_from([None, False, True]),
    changes=some.lists(CHANGES, min_size=8, max_size=8),
)
def test_pages_hold_everybody_once_whatever_happens_meanwhile(
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
            read(database, number, minutes + 1)
    present = NOON + timedelta(minutes=101)
    there = _expected(studies, reviewed)
    with database.read_session() as session:
        assert [
            one.image_id for one in load_page(session, WorklistFilter(reviewed=reviewed), CAP, at=present).studies
        ] == there
    seen: list[str] = []
    again: set[str] = set()
    cursor, turn = None, 0
    while True:
        with database.read_session() as session:
            got = load_page(session, WorklistFilter(reviewed=reviewed), CAP, limit, cursor, at=present)
        assert len(got.studies) <= limit and (got.cursor is None or len(got.studies) == limit)
        seen += [one.image_id for one in got.studies]
        cursor = got.cursor
        if cursor is None:
            break
        for kind, any_number, score in changes[turn] if turn < len(changes) else []:
            number = any_number % len(studies)
            match kind:
                case "new":
                    add(database, f"new {turn} {number}", 102 + turn, score)
                case "read":
                    read(database, number, 103 + turn)
                case "again":
                    with database.write_session() as session:
                        minutes = studies[number][0]
                        record_prediction(
                            session, make_image(number, minutes), make_prediction(number, score, 104 + turn)
                        )
                    again.add(sha(number))
        turn += 1
    calm = [name for name in there if name not in again]
    assert [name for name in seen if name in calm] == calm, "each once, in the order of the first page"
    assert set(there) <= set(seen), "nobody is left out, not even who was scored anew"


def _expected(studies: list[tuple[int, float, bool]], reviewed: bool | None) -> list[str]:
    """The order, written plainly: as of 13:41 with a cap of an hour, so whoever came until 12:41 goes first."""

    def key(number: int) -> tuple[Any, ...]:
        minutes, score, done = studies[number]
        if not done and minutes <= 41:
            return (0, minutes, sha(number))
        return (1, 0 if score >= 0.8 else 1 if score >= 0.5 else 2, -score, minutes, sha(number))

    wanted = [number for number, one in enumerate(studies) if reviewed is None or one[2] == reviewed]
    return [sha(number) for number in sorted(wanted, key=key)]


def _empty(database: Database) -> None:
    with database.write_session() as session:
        for table in ("positives", "worklist", "predictions", "reviews", "images"):
            session.execute(text(f"DELETE FROM {table}"))


def test_a_cursor_keeps_the_cap_of_its_first_page(database: Database) -> None:
    for number in range(4):
        add(database, number, 10 * number, 0.1)
    with database.read_session() as session:
        first = load_page(session, WorklistFilter(), CAP, limit=2, at=LATER)
        assert first.cursor is not None
        second = load_page(session, WorklistFilter(), 0.0, limit=2, cursor=first.cursor)
    assert [one.image_id for one in first.studies + second.studies] == [sha(number) for number in range(4)]
    assert second.cursor is None


def test_a_page_has_a_size(database: Database) -> None:
    for limit in (0, MAX_PAGE_SIZE + 1):
        with (
            pytest.raises(ValueError, match=f"limit={limit} must be from 1 to {MAX_PAGE_SIZE}"),
            database.read_session() as session,
        ):
            load_page(session, WorklistFilter(), CAP, limit)


def test_a_cursor_that_is_none_is_refused(database: Database) -> None:
    before_all_time = '{"at":"0001-01-01T00:00:00Z","minutes":60}'
    strange = ["", "x", "AAAA", "é", "eyJhIjoxfQ", base64.urlsafe_b64encode(before_all_time.encode()).decode()]
    for cursor in strange:
        with pytest.raises(ValueError, match="the cursor is none"), database.read_session() as session:
            load_page(session, WorklistFilter(), CAP, 5, cursor)
