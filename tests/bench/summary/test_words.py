"""How the page words numbers."""

import pytest

from tests.bench.summary.words import at_least, at_most, count, number, percent, times


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.873, "0.87"),
        (4.516, "4.52"),
        (40.08, "40.1"),
        (276.3, "276"),
        (11231.0, "11,200"),
        (-2.17, "-2.17"),
    ],
)
def test_rounds_to_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_keeps_all_digits_of_a_count() -> None:
    assert count(112120.0) == "112,120"


def test_says_shares_and_ratios() -> None:
    assert percent(0.0142) == "1.42 %"
    assert times(1.378, "the peer") == "1.38 \u00d7 the peer"


def test_says_whether_a_target_is_met() -> None:
    assert at_most(6.0, 6, "s") == "at most 6 s: met"
    assert at_most(6.1, 6, "s") == "at most 6 s: **missed**"
    assert at_least(30.0, 30, "frames/s") == "at least 30 frames/s: met"
    assert at_least(29.9, 30, "frames/s") == "at least 30 frames/s: **missed**"
