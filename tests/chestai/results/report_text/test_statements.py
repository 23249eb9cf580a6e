"""Bands and changes: what follows from a probability, its operating point, and an earlier film."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.results.film_result import FindingResult
from chestai.results.report_text.statements import Change, State, find_change, find_state, summarise

ABOVE_ONE = math.nextafter(1.0, 2.0)  # the operating point that calls nothing positive
PROBABILITIES = st.floats(0, 1)
POINTS = PROBABILITIES | st.just(ABOVE_ONE)


def make(probability: float, point: float | None = 0.5, name: str = "Mass") -> FindingResult:
    return FindingResult(name, probability, point)


@pytest.mark.parametrize(
    ("probability", "point", "state"),
    [
        (0.7, 0.5, "present"),  # odds 2.33 of 1
        (0.6, 0.5, "uncertain"),  # 1.5
        (0.5, 0.5, "uncertain"),
        (0.4, 0.5, "uncertain"),  # 0.67
        (0.3, 0.5, "absent"),  # 0.43
        (0.05, 0.02, "present"),  # the same probability means another thing at another operating point
        (0.05, 0.04, "uncertain"),
        (0.05, 0.2, "absent"),
        (0.99, ABOVE_ONE, "absent"),
        (0.5, None, None),
        (0.5, math.nan, None),
    ],
)
def test_a_band_depends_on_the_operating_point(probability: float, point: float | None, state: State | None) -> None:
    assert find_state(make(probability, point)) == state


@given(PROBABILITIES, POINTS)
def test_present_is_positive_and_absent_is_not(probability: float, point: float) -> None:
    finding = make(probability, point)
    state = find_state(finding)
    assert state is not None
    assert finding.positive or state != "present"
    assert not (finding.positive and state == "absent")


@given(PROBABILITIES, PROBABILITIES, POINTS)
def test_a_higher_probability_is_never_less_present(one: float, other: float, point: float) -> None:
    order = ("absent", "uncertain", "present")
    low, high = (order.index(find_state(make(value, point)) or "") for value in sorted((one, other)))
    assert low <= high


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_an_error(probability: float) -> None:
    with pytest.raises(ValueError, match="must be in 0 to 1"):
        find_state(make(probability))


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (0.5, 0.7, "higher"),
        (0.5, 0.6, "unchanged"),
        (0.7, 0.5, "lower"),
        (0.01, 0.05, None),  # absent on both: five times next to nothing is no news
        (0.05, 0.5, "higher"),
        (0.9, 0.01, "lower"),
    ],
)
def test_a_score_changes_when_its_odds_double_or_halve(before: float, after: float, change: Change | None) -> None:
    assert find_change(make(before), make(after)) == change


def test_changes_are_of_findings_on_both_films() -> None:
    now = [make(0.9, name="Mass"), make(0.9, name="Edema"), make(0.9, None, "Hernia")]
    before = [make(0.5, name="Mass"), make(0.9, None, "Hernia"), make(0.9, name="Nodule")]
    assert [(one.finding, one.state, one.change) for one in summarise(now, before)] == [
        ("Mass", "present", "higher"),
        ("Edema", "present", None),
        ("Hernia", None, None),
    ]


def test_a_finding_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        summarise([make(0.1), make(0.9)])
