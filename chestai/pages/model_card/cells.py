"""Estimates with their intervals, as cells of tables."""

import math

from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import Estimate
from chestai.pages.page import Cell, Note, format_number


def format_estimate(estimate: Estimate, digits: int = 3) -> Cell:
    """A number such as an AUROC, its interval small beside it; a dash where it is undefined."""
    bounds = [format_number(bound, digits) for bound in (estimate.low, estimate.high)]
    return Cell(format_number(estimate.value, digits), _format_interval(estimate, bounds))


def format_difference(estimate: Estimate, digits: int = 3) -> Cell:
    """As `score`, with signs."""
    bounds = [format_signed(bound, digits) for bound in (estimate.low, estimate.high)]
    return Cell(format_signed(estimate.value, digits), _format_interval(estimate, bounds))


def format_share(estimate: Estimate) -> Cell:
    """As `score`, in percent."""
    text = format_number(100 * estimate.value, 1)
    bounds = [format_number(100 * bound, 1) for bound in (estimate.low, estimate.high)]
    return Cell(f"{text}%" if math.isfinite(estimate.value) else text, _format_interval(estimate, bounds))


def format_signed(value: float, digits: int = 3) -> str:
    """+0.012; a dash where it is undefined."""
    return f"{value:+.{digits}f}" if math.isfinite(value) else format_number(value)


def format_inline(estimate: Estimate, digits: int = 3) -> str:
    """A number and its interval as one text: 0.812 [0.801, 0.823]."""
    cell = format_estimate(estimate, digits)
    return f"{cell.text} {cell.note}".strip()


def _format_interval(estimate: Estimate, bounds: list[str]) -> str:
    known = all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
    return f"[{', '.join(bounds)}]" if known else ""


def get_reason(evidence: Evidence, name: str) -> str:
    """Why a section could not be measured; `name` is its field of the evidence."""
    return evidence.missing.get(name, "no reason was recorded").rstrip(".")


def build_not_measured(evidence: Evidence, name: str) -> list[Note]:
    """The one part of such a section."""
    return [Note(f"Not measured: {get_reason(evidence, name)}.")]
