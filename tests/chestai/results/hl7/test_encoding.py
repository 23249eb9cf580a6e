"""Escapes, names and times."""

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.results.hl7.encoding import escape, join_components, join_segment, unescape, write_time
from chestai.results.hl7.names import write_xcn, write_xpn
from chestai.results.text import clean
from tests.chestai.results.samples import AT

TEXTS = st.text() | st.text("|^~\\&\r\n\x0b\x1cFSTREXbr.09 ")


@given(TEXTS)
def test_a_text_survives_the_wire(text: str) -> None:
    value = escape(text)
    assert unescape(value) == clean(text)
    assert not set(value) & set("|^~&\r\n\x0b\x1c")


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_components_survive_the_wire(parts: list[str]) -> None:
    found = [unescape(part) for part in join_components(*parts).split("^")]
    assert found + [""] * (len(parts) - len(found)) == [clean(part) for part in parts]


@given(TEXTS)
def test_any_value_can_be_read(value: str) -> None:
    unescape(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a|b^c&d~e\\f", r"a\F\b\S\c\T\d\R\e\E\f"),
        ("a\r\nb\rc", r"a\.br\b\.br\c"),
        ("\x0ba\x1c\x00", "a"),
        ("Ü🫁", "Ü🫁"),
    ],
)
def test_escapes(text: str, value: str) -> None:
    assert escape(text) == value


@pytest.mark.parametrize(("value", "text"), [(r"\XC3BC\ ", "ü "), (r"a\H\b\N\c", "abc"), ("a\\b", "a\\b")])
def test_sequences_of_others_are_read(value: str, text: str) -> None:
    assert unescape(value) == text


def test_prefix_and_suffix_change_places() -> None:
    assert write_xpn("Doe^Jane^Mary^Dr^PhD") == "Doe^Jane^Mary^PhD^Dr^^L^A"
    assert write_xcn("House^Gregory^^Dr") == "^House^Gregory^^^Dr"


def test_each_script_is_a_repetition() -> None:
    assert write_xpn("Yamada^Tarou=山田^太郎") == "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I"


def test_nobody_has_a_name_of_unspecified_type() -> None:
    assert write_xpn(" ^^") == "^^^^^^U"
    assert write_xcn("") == ""


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, ""),
        (date(1960, 5, 4), "19600504"),
        (date(1, 2, 3), "00010203"),
        (datetime(2026, 3, 1, 7, 15), "20260301071500"),
        (AT, "20260301083015+0000"),
    ],
)
def test_times(at: date | datetime | None, text: str) -> None:
    assert write_time(at) == text


def test_fields_stand_at_their_numbers() -> None:
    assert join_segment("ORC", {3: "c", 1: "a", 7: ""}) == "ORC|a||c"
    assert join_segment("NTE", {}) == "NTE"
