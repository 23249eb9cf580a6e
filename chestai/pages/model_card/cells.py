"""Estimates with their intervals, as cells of tables."""

import math

from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import Estimate
from chestai.pages.page import Cell, Note, number


def score(estimate: Estimate, digits: int = 3) -> Cell:
    """A number such as an AUROC, its interval small beside it; a dash where it is undefined."""
    bounds = [number(bound, digits) for bound in (estimate.low, estimate.high)]
    return Cell(number(estimate.value, digits), _interval(estimate, bounds))


def difference(estimate: Estimate, digits: int = 3) -> Cell:
    """As `score`, with signs."""
    bounds = [signed(bound, digits) for bound in (estimate.low, estimate.high)]
    return Cell(signed(estimate.value, digits), _interval(estimate, bounds))


def share(estimate: Estimate) -> Cell:
    """As `score`, in percent."""
    text = number(100 * estimate.value, 1)
    bounds = [number(100 * bound, 1) for bound in (estimate.low, estimate.high)]
    return Cell(f"{text}%" if math.isfinite(estimate.value) else text, _interval(estimate, bounds))


def signed(value: float, digits: int = 3) -> str:
    """+0.012; a dash where it is undefined."""
    return f"{value:+.{digits}f}" if math.isfinite(value) else number(value)


def in_text(estimate: Estimate, digits: int = 3) -> str:
    """A number and its interval as one text: 0.812 [0.801, 0.823]."""
    cell = score(estimate, digits)
    return f"{cell.text} {cell.note}".strip()


def _interval(estimate: Estimate, bounds: list[str]) -> str:
    known = all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
    return f"[{', '.join(bounds)}]" if known else ""


def reason(evidence: Evidence, name: str) -> str:
    """Why a section could not be measured; `name` is its field of the evidence."""
    return evidence.missing.get(name, "no reason was recorded").rstrip(".")


def not_measured(evidence: Evidence, name: str) -> list[Note]:
    """The one part of such a section."""
    return [Note(f"Not measured: {reason(evidence, name)}.")]
