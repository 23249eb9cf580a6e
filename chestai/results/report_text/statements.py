"""What is to be said of a finding: the band of its probability, and how its score changed since an earlier film.

Both compare odds, p / (1 - p), and both use one factor: twice the odds, or half of them. A band depends on the model's
own operating point, so that a finding with an operating point of 0.02 and one with 0.6 are worded alike where the model
is equally far from its decision.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from chestai.results.film_result import FindingResult

State = Literal["present", "uncertain", "absent"]
Change = Literal["higher", "unchanged", "lower"]

FACTOR = 2.0
"""Of odds, from which on a probability is clearly on one side of another."""


@dataclass(frozen=True)
class Statement:
    """What is said of a finding.

    Attributes:
        finding: As the model names it.
        state: None where the model has no operating point for it: then nothing is said of its presence.
        change: Of its score since an earlier film; None where none is stated.
    """

    finding: str
    state: State | None
    change: Change | None = None


def find_state(finding: FindingResult) -> State | None:
    """The band of a probability; None without an operating point.

    Present from twice the odds of the operating point on, absent up to half of them, uncertain between. A finding that
    is present is always positive, and one that is absent never is.

    Raises:
        ValueError: The probability is not in 0 to 1.
    """
    value, point = finding.probability, finding.operating_point
    if not 0 <= value <= 1:
        raise ValueError(f"the probability {value} of {finding.finding} must be in 0 to 1")
    if point is None or point != point:
        return None
    point = min(max(point, 0.0), 1.0)  # one that calls nothing positive is the next float above 1
    if finding.positive and _exceeds(value, point):
        return "present"
    return "absent" if not finding.positive and _exceeds(point, value) else "uncertain"


def find_change(before: FindingResult, after: FindingResult) -> Change | None:
    """How a score changed between two films that one model version scored: the odds doubled, halved, or neither.

    None where the finding is absent on both films: the ratio of two small scores says nothing; or where it has no
    operating point. Raises as `find_state`.
    """
    if {find_state(before), find_state(after)} <= {"absent", None}:
        return None
    if _exceeds(after.probability, before.probability):
        return "higher"
    return "lower" if _exceeds(before.probability, after.probability) else "unchanged"


def summarise(findings: Iterable[FindingResult], earlier: Iterable[FindingResult] = ()) -> list[Statement]:
    """A statement for each finding, in their order.

    Args:
        earlier: Of an earlier film of the same patient, by the same model version.

    Raises:
        ValueError: A finding is there twice, or as `find_state`.
    """
    before: Mapping[str, FindingResult] = {finding.finding: finding for finding in earlier}
    statements = [
        Statement(
            finding.finding,
            find_state(finding),
            find_change(before[finding.finding], finding) if finding.finding in before else None,
        )
        for finding in findings
    ]
    if len({statement.finding for statement in statements}) < len(statements):
        raise ValueError("a finding is there twice")
    return statements


def _exceeds(one: float, other: float) -> bool:
    """Whether the odds of one probability are at least `FACTOR` times those of another, both in 0 to 1."""
    ours, theirs = one * (1 - other), other * (1 - one)  # the odds, times the same number, so that 1 needs no infinity
    return ours > 0 and ours >= FACTOR * theirs
