"""The evidence as CSV tables: full precision, original names of findings, empty cells for undefined values."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from chestai.evaluation.evidence import Evidence, RobustnessReport
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.localisation import OVERLAPS, LocalisationReport, MapReport
from chestai.metrics.operating_points import PointReport
from chestai.metrics.reliability import CalibrationReport, Curve
from chestai.metrics.report import PerformanceReport
from chestai.metrics.subgroups import SubgroupReport
from chestai.metrics.thresholds import Confusion
from chestai.triage.metrics import UrgencyReport
from chestai.triage.queue_simulation import QueueReport

Value = str | int | float | None
Row = Mapping[str, Value]  # all rows of a table have the same columns in the same order

MACRO, MICRO, POOLED = "macro", "micro", "pooled"  # values of the column `finding` for all findings together


def render_csv_tables(evidence: Evidence) -> dict[str, str]:
    """Render a table for each measured section: file name -> text.

    Columns `x`, `x_low`, `x_high` are an estimate and its 95 % interval. Shares are in [0, 1], waits in minutes.
    """
    tables: dict[str, Iterator[Row]] = {
        "ranking.csv": _list_ranking(evidence.report),
        "operating_points.csv": _list_operating_points(evidence.points),
        "calibration.csv": _list_calibration(evidence.calibration, evidence.in_force),
        "reliability_curve.csv": _list_curves(evidence.calibration),
    }
    if evidence.urgency:
        tables["triage.csv"] = _list_triage(evidence.urgency)
    if evidence.queue:
        tables["queue.csv"] = _list_waits(evidence.queue)
    if evidence.subgroups:
        tables["subgroups.csv"] = _list_subgroups(evidence.subgroups)
        tables["subgroup_gaps.csv"] = _list_gaps(evidence.subgroups)
    if evidence.localisation:
        tables["localisation.csv"] = _list_localisation(evidence.localisation)
    if evidence.robustness:
        tables["robustness.csv"] = _list_robustness(evidence.robustness)
    texts = {name: _write_csv(list(rows)) for name, rows in tables.items()}
    return {name: text for name, text in texts.items() if text}


def _write_csv(rows: Sequence[Row]) -> str:
    """Empty text if there are no rows."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _blank_nan(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _blank_nan(value: Value) -> Value:
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return value


def _flatten_estimates(**values: Estimate) -> dict[str, Value]:
    bounds = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{suffix}": getattr(estimate, field)
        for name, estimate in values.items()
        for suffix, field in bounds.items()
    }


def _flatten_confusion(confusion: Confusion | None) -> dict[str, Value]:
    return {name: getattr(confusion, name) if confusion else None for name in ("tp", "fp", "tn", "fn")}


def _list_ranking(report: PerformanceReport) -> Iterator[Row]:
    for row in report.findings:
        known = row.positives + row.negatives
        counts: dict[str, Value] = {"positives": row.positives, "negatives": row.negatives}
        counts["prevalence"] = row.positives / known if known else None
        yield {"finding": row.finding, **counts, **_flatten_estimates(auroc=row.auroc, auprc=row.auprc)}
    none: dict[str, Value] = dict.fromkeys(("positives", "negatives", "prevalence"))
    yield {"finding": MACRO, **none, **_flatten_estimates(auroc=report.macro_auroc, auprc=report.macro_auprc)}
    yield {"finding": MICRO, **none, **_flatten_estimates(auroc=report.micro_auroc, auprc=report.micro_auprc)}


def _list_operating_points(points: Sequence[PointReport]) -> Iterator[Row]:
    for point in points:
        rates = _flatten_estimates(
            sensitivity=point.sensitivity, specificity=point.specificity, ppv=point.ppv, npv=point.npv
        )
        start: dict[str, Value] = {"finding": point.finding, "point": point.point, "threshold": point.threshold}
        yield {**start, **_flatten_confusion(point.confusion), **rates}


def _list_calibration(reports: Sequence[CalibrationReport], in_force: str) -> Iterator[Row]:
    for report in reports:
        start: dict[str, Value] = {"method": report.method, "in_force": int(report.method == in_force)}
        for row in report.findings:
            errors = {"ece": row.ece, "floor": row.floor, "brier": row.brier}
            yield {**start, "finding": row.finding, "images": sum(row.curve.images), **errors}
        means = {"ece": report.macro_ece, "floor": report.macro_floor, "brier": report.macro_brier}
        yield {**start, "finding": MACRO, "images": None, **means}


def _list_curves(reports: Sequence[CalibrationReport]) -> Iterator[Row]:
    for report in reports:
        for row in report.findings:
            yield from _list_curve_bins(report.method, row.finding, row.curve)
        yield from _list_curve_bins(report.method, POOLED, report.pooled)


def _list_curve_bins(method: str, finding: str, curve: Curve) -> Iterator[Row]:
    for predicted, observed, images in zip(curve.predicted, curve.observed, curve.images, strict=True):
        start: dict[str, Value] = {"method": method, "finding": finding}
        yield {**start, "predicted": predicted, "observed": observed, "images": images}


def _list_triage(report: UrgencyReport) -> Iterator[Row]:
    """A row for each cut-off; all repeat AUROC and AUPRC of the score, and counts are of the cut-off's own bucket."""
    for cut in report.cuts:
        urgent, others = report.counts.get(cut.bucket, (None, None))
        start: dict[str, Value] = {"bucket": cut.bucket, "cut": cut.cut}
        counts: dict[str, Value] = {"urgent_in_bucket": urgent, "others_in_bucket": others}
        rates = _flatten_estimates(sensitivity=cut.sensitivity, specificity=cut.specificity, ppv=cut.ppv, npv=cut.npv)
        score = _flatten_estimates(auroc=report.auroc, auprc=report.auprc)
        yield {**start, **_flatten_confusion(cut.confusion), **rates, **counts, **score}


def _list_waits(report: QueueReport) -> Iterator[Row]:
    for wait in report.waits:
        start: dict[str, Value] = {"policy": wait.policy, "group": wait.group, "studies": wait.studies}
        yield {**start, "mean": wait.mean, "median": wait.median, "p95": wait.p95, "maximum": wait.maximum}


def _list_subgroups(report: SubgroupReport) -> Iterator[Row]:
    """Measured groups, then groups that were too small, with their number of images only."""
    none = Estimate(math.nan, math.nan, math.nan)
    for group in report.groups:
        start: dict[str, Value] = {"axis": group.axis, "group": group.name}
        counts: dict[str, Value] = {"images": group.images, "patients": group.patients}
        yield {**start, **counts, **_flatten_estimates(macro_auroc=group.macro_auroc, fnr=group.fnr)}
    for axis, name, images in report.left_out:
        out: dict[str, Value] = {"axis": axis, "group": name, "images": images, "patients": None}
        yield {**out, **_flatten_estimates(macro_auroc=none, fnr=none)}


def _list_gaps(report: SubgroupReport) -> Iterator[Row]:
    for gap in report.gaps:
        start: dict[str, Value] = {"axis": gap.axis, "metric": gap.metric, "better": gap.better, "worse": gap.worse}
        yield {**start, **_flatten_estimates(gap=gap.gap), "findings": " ".join(gap.findings)}


def _list_localisation(report: LocalisationReport) -> Iterator[Row]:
    """metric: pointing, iou or iobb at a threshold, gain of the model. By finding: only pointing, without intervals."""
    for cases, reports in (("all", report.all_cases), ("shown", report.shown)):
        count = report.cases if cases == "all" else report.cases - report.suppressed
        for maps in reports:
            yield from _list_map(cases, maps, count)
    for control, gain in report.gains.items():
        yield _build_localisation_row("all", control, "gain", gain, report.cases)


def _list_map(cases: str, maps: MapReport, count: int) -> Iterator[Row]:
    yield _build_localisation_row(cases, maps.maps, "pointing", maps.pointing, count)
    for metric, estimates in (("iou", maps.iou), ("iobb", maps.iobb)):
        for threshold, estimate in zip(OVERLAPS, estimates, strict=True):
            yield _build_localisation_row(cases, maps.maps, metric, estimate, count, threshold=threshold)
    for finding, (pointing, finding_count) in maps.by_finding.items():
        estimate = Estimate(pointing, math.nan, math.nan)
        yield _build_localisation_row(cases, maps.maps, "pointing", estimate, finding_count, finding=finding)


def _build_localisation_row(
    cases: str,
    maps: str,
    metric: str,
    estimate: Estimate,
    count: int,
    threshold: float | None = None,
    finding: str = "",
) -> Row:
    start: dict[str, Value] = {"cases": cases, "maps": maps, "metric": metric, "threshold": threshold}
    return {**start, "finding": finding, "count": count, **_flatten_estimates(value=estimate)}


def _list_robustness(report: RobustnessReport) -> Iterator[Row]:
    for (corruption, severity), drop in report.drops.items():
        start: dict[str, Value] = {"corruption": corruption, "severity": severity, "images": report.images}
        change = _flatten_estimates(change=drop.difference)
        yield {**start, "clean": drop.baseline, "corrupted": drop.other, **change}
