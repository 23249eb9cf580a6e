"""Formats estimates with their intervals, and notes for what was not measured."""

import math
from collections.abc import Callable

from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.operating_points import PointReport
from chestai.pages.page import Cell, Note, format_number
from chestai.triage.metrics import CutReport

CONFUSION_COLUMNS = ("TP", "FP", "TN", "FN", "sensitivity", "specificity", "PPV", "NPV")


def format_estimate(estimate: Estimate, digits: int = 3) -> Cell:
    """A value with its interval as a note: 0.812 [0.801, 0.823]; a dash if it is undefined."""
    return _build_cell(estimate, lambda value: format_number(value, digits))


def format_difference(estimate: Estimate, digits: int = 3) -> Cell:
    """Like `format_estimate`, with signs."""
    return _build_cell(estimate, lambda value: format_signed(value, digits))


def format_share(estimate: Estimate) -> Cell:
    """Like `format_estimate`, in percent."""
    cell = _build_cell(estimate, lambda value: format_number(100 * value, 1))
    return Cell(f"{cell.text}%", cell.note) if math.isfinite(estimate.value) else cell


def format_signed(value: float, digits: int = 3) -> str:
    """+0.012; a dash if it is undefined."""
    return f"{value:+.{digits}f}" if math.isfinite(value) else format_number(value)


def format_inline(estimate: Estimate, digits: int = 3) -> str:
    """A value and its interval as text: 0.812 [0.801, 0.823]."""
    cell = format_estimate(estimate, digits)
    return f"{cell.text} {cell.note}".strip()


def format_confusion(report: PointReport | CutReport) -> list[Cell]:
    """TP, FP, TN, FN, sensitivity, specificity, PPV and NPV; dashes if they are undefined."""
    confusion = report.confusion
    counts = (confusion.tp, confusion.fp, confusion.tn, confusion.fn) if confusion else (math.nan,) * 4
    rates = (report.sensitivity, report.specificity, report.ppv, report.npv)
    return [*(Cell(format_number(count)) for count in counts), *map(format_share, rates)]


def get_reason(evidence: Evidence, name: str) -> str:
    """Why a field of the evidence was not measured."""
    return evidence.missing.get(name, "no reason was recorded").rstrip(".")


def build_not_measured(evidence: Evidence, name: str) -> list[Note]:
    """The content of a section without measurements: the reason."""
    return [Note(f"Not measured: {get_reason(evidence, name)}.")]


def _build_cell(estimate: Estimate, format_value: Callable[[float], str]) -> Cell:
    if all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        return Cell(format_value(estimate.value), f"[{format_value(estimate.low)}, {format_value(estimate.high)}]")
    return Cell(format_value(estimate.value))
