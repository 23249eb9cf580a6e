"""Cursors that no page gave: each is refused as such or gives a page, on both kinds of database."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.db.worklist.page import Order, WorklistFilter, load_page
from tests.serve.support.samples import NOON, make_image, make_prediction, sha

WIDE = [2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400]
TIMES = [
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
]
TIMES += ["-0044-03-15T00:00:00Z", "12026-01-01T00:00:00Z", "2026-03-01T12:00:00", "2026-03-01T12:00:00Z"]
FIELDS: dict[str, list[Any]] = {
    "at": TIMES,
    "minutes": [0, 60, 1e7, 1e308, -1, *WIDE],
    "order": ["score", "bucket", "arrival", "falling"],
    "part": [0, 1, 2, 3, -1, *WIDE],
    "urgency": [-1, 0, 2, 3, *WIDE],
    "falling": [-1, -0.5, 0, 1e308, *WIDE],
    "received_at": [None, *TIMES],
    "image_id": [None, sha(1), sha(1)[:-1] + "\0", f"{sha(1)}\n", "x" * 100_000],
    "more": [1],
}
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=2)
)


@st.composite
def forge_cursors(draw: st.DrawFn) -> str:
    """Draws the JSON of a cursor with some fields replaced or left out."""
    first = {"at": "2026-03-01T13:40:00Z", "minutes": 60.0, "received_at": "2026-03-01T12:01:00Z", "image_id": sha(1)}
    for name in draw(st.lists(st.sampled_from([*FIELDS]), max_size=3)):
        first[name] = draw(st.sampled_from(FIELDS[name]) | ANYTHING)
    for name in draw(st.lists(st.sampled_from([*first]), max_size=1)):
        del first[name]
    return json.dumps(first)


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode(errors="surrogatepass")).decode().rstrip("=")


@pytest.fixture
def filled(database: Database) -> Database:
    with database.write_session() as session:
        for number, score in enumerate((0.1, 0.6, 0.9)):
            record_prediction(session, make_image(number, number), make_prediction(number, score, number))
    return database


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=forge_cursors(), order=st.sampled_from(["score", "bucket", "arrival"]))
def test_forged_cursor_is_refused_or_gives_a_page(filled: Database, text: str, order: Order) -> None:
    with suppress(ValueError), filled.read_session() as session:
        page = load_page(session, WorklistFilter(), 60.0, 2, encode(text), order=order)
        assert len(page.studies) <= 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_text_that_is_no_cursor_is_refused(filled: Database, text: str) -> None:
    with pytest.raises(ValueError, match="the cursor is none"), filled.read_session() as session:
        load_page(session, WorklistFilter(), 60.0, 2, text)


def test_accepts_its_own_cursors(filled: Database) -> None:
    for order in ("score", "bucket", "arrival"):
        found: list[str] = []
        cursor = None
        while len(found) < 3:
            with filled.read_session() as session:
                page = load_page(session, WorklistFilter(), 60.0, 1, cursor, NOON, order)
            found += [study.image_id for study in page.studies]
            cursor = page.cursor
        assert {*found} == {sha(number) for number in range(3)} and cursor is None
