"""Names, texts, numbers, UIDs and the standing of results, which all forms share."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.results.numbers import write_number
from chestai.results.person_name import PersonName, parse_names
from chestai.results.review_status import find_opinion, find_stage
from chestai.results.text import clean, shorten
from chestai.results.uid import is_uid
from tests.chestai.results.samples import AT, RESULT, review


def test_a_name_is_taken_apart_in_each_script() -> None:
    names = parse_names("Yamada^Tarou^^Dr^MD=山田^太郎=やまだ^たろう")
    assert names == [
        PersonName("alphabetic", "Yamada", "Tarou", "", "Dr", "MD"),
        PersonName("ideographic", "山田", "太郎"),
        PersonName("phonetic", "やまだ", "たろう"),
    ]
    assert names[0].full == "Dr Tarou Yamada MD"


@pytest.mark.parametrize("text", ["", "^^^^", "==", " ^ = ", "\x00"])
def test_nobody_has_no_name(text: str) -> None:
    assert parse_names(text) == []


@given(st.text())
def test_any_text_has_names_of_bounded_parts(text: str) -> None:
    for name in parse_names(text):
        assert all(len(part) <= 64 for part in (name.family, name.given, name.middle, name.prefix, name.suffix))


@given(st.text())
def test_clean_text_is_stable_and_printable(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    cleaned.encode()
    assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in cleaned)


def test_shortened_text_says_so() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1.0, "1"), (1 + 2**-52, "1"), (0.5, "0.5"), (0.49999999, "0.49999999")]
)
def test_numbers_are_not_rounded_over_an_operating_point(value: float, text: str) -> None:
    assert write_number(value) == text


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1])
def test_a_number_that_is_no_probability_does_not_go_out(value: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        write_number(value)


@pytest.mark.parametrize(
    ("text", "valid"),
    [("1.2.3", True), ("2.25.0", True), ("1.02", False), ("1..2", False), ("", False), ("1." + "1" * 64, False)],
)
def test_uids(text: str, valid: bool) -> None:
    assert is_uid(text) is valid


def test_a_result_is_preliminary_until_it_has_a_review() -> None:
    reviewed = replace(RESULT, reviews=(review("Cardiomegaly", "TP"),), revision=1)
    assert find_stage(RESULT) == "preliminary"
    assert find_stage(reviewed) == "final"
    assert find_stage(replace(reviewed, revision=2)) == "amended"
    assert find_stage(replace(reviewed, revision=3, reviews=())) == "preliminary"


def test_a_result_changes_with_the_latest_review() -> None:
    early, late = (replace(review("Hernia", "TP"), at=AT + timedelta(days=days)) for days in (-1, 1))
    assert RESULT.changed_at == replace(RESULT, reviews=(early,)).changed_at == AT
    assert replace(RESULT, reviews=(late, early)).changed_at == late.at


def test_reviewers_who_disagree_are_unsure() -> None:
    assert find_opinion([]) is None
    assert find_opinion([review("Edema", "FN")]) == "present"
    assert find_opinion([review("Edema", "FP"), review("Edema", "TN", "Other")]) == "absent"
    assert find_opinion([review("Edema", "FP"), review("Edema", "FN", "Other")]) == "unsure"
