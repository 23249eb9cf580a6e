"""The evidence of a model as CSV tables: full precision, findings by their own names, empty where undefined."""

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
Row = Mapping[str, Value]  # all rows of a table have the same names in the same order

MACRO, MICRO, POOLED = "macro", "micro", "pooled"  # in the column of findings: what is over all of them


def render_csv_tables(evidence: Evidence) -> dict[str, str]:
    """File name -> text, of those sections that were measured.

    Columns `x`, `x_low`, `x_high` are an estimate and its 95 % interval. Shares are in [0, 1], waits in minutes.
    """
    tables: dict[str, Iterator[Row]] = {"ranking.csv": _list_ranking(evidence.report)}
    tables["operating_points.csv"] = _list_operating_points(evidence.points)
    tables["calibration.csv"] = _list_calibration(evidence.calibration, evidence.in_force)
    tables["reliability_curve.csv"] = _list_curves(evidence.calibration)
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
    """Empty without rows."""
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
    return {f"{name}{end}": getattr(one, field) for name, one in values.items() for end, field in bounds.items()}


def _flatten_confusion(found: Confusion | None) -> dict[str, Value]:
    return {name: getattr(found, name) if found else None for name in ("tp", "fp", "tn", "fn")}


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
    for one in points:
        rates = _flatten_estimates(sensitivity=one.sensitivity, specificity=one.specificity, ppv=one.ppv, npv=one.npv)
        start: dict[str, Value] = {"finding": one.finding, "point": one.point, "threshold": one.threshold}
        yield {**start, **_flatten_confusion(one.confusion), **rates}


def _list_calibration(reports: Sequence[CalibrationReport], in_force: str) -> Iterator[Row]:
    for report in reports:
        start: dict[str, Value] = {"method": report.method, "in_force": int(report.method == in_force)}
        for one in report.findings:
            errors = {"ece": one.ece, "floor": one.floor, "brier": one.brier}
            yield {**start, "finding": one.finding, "images": sum(one.curve.images), **errors}
        means = {"ece": report.macro_ece, "floor": report.macro_floor, "brier": report.macro_brier}
        yield {**start, "finding": MACRO, "images": None, **means}


def _list_curves(reports: Sequence[CalibrationReport]) -> Iterator[Row]:
    for report in reports:
        for one in report.findings:
            yield from _list_curve_bins(report.method, one.finding, one.curve)
        yield from _list_curve_bins(report.method, POOLED, report.pooled)


def _list_curve_bins(method: str, finding: str, curve: Curve) -> Iterator[Row]:
    for predicted, observed, images in zip(curve.predicted, curve.observed, curve.images, strict=True):
        start: dict[str, Value] = {"method": method, "finding": finding}
        yield {**start, "predicted": predicted, "observed": observed, "images": images}


def _list_triage(report: UrgencyReport) -> Iterator[Row]:
    """One row a cut; AUROC and AUPRC of the score are the same in all, counts are of the cut's bucket alone."""
    for cut in report.cuts:
        urgent, others = report.counts.get(cut.bucket, (None, None))
        start: dict[str, Value] = {"bucket": cut.bucket, "cut": cut.cut}
        counts: dict[str, Value] = {"urgent_in_bucket": urgent, "others_in_bucket": others}
        rates = _flatten_estimates(sensitivity=cut.sensitivity, specificity=cut.specificity, ppv=cut.ppv, npv=cut.npv)
        score = _flatten_estimates(auroc=report.auroc, auprc=report.auprc)
        yield {**start, **_flatten_confusion(cut.confusion), **rates, **counts, **score}


def _list_waits(report: QueueReport) -> Iterator[Row]:
    for one in report.waits:
        start: dict[str, Value] = {"policy": one.policy, "group": one.group, "studies": one.studies}
        yield {**start, "mean": one.mean, "median": one.median, "p95": one.p95, "maximum": one.maximum}


def _list_subgroups(report: SubgroupReport) -> Iterator[Row]:
    """Measured groups, then those left out, of which only the images are known."""
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
    """metric: pointing, iou or iobb at a threshold, gain of the model; per finding only pointing, without interval."""
    for kind, maps in (("all", report.all_cases), ("shown", report.shown)):
        cases = report.cases if kind == "all" else report.cases - report.suppressed
        for one in maps:
            yield from _list_map(kind, one, cases)
    for control, gain in report.gains.items():
        yield _build_localisation_row("all", control, "gain", gain, report.cases)


def _list_map(kind: str, one: MapReport, cases: int) -> Iterator[Row]:
    yield _build_localisation_row(kind, one.maps, "pointing", one.pointing, cases)
    for metric, estimates in (("iou", one.iou), ("iobb", one.iobb)):
        for threshold, estimate in zip(OVERLAPS, estimates, strict=True):
            yield _build_localisation_row(kind, one.maps, metric, estimate, cases, threshold=threshold)
    for finding, (pointing, count) in one.by_finding.items():
        estimate = Estimate(pointing, math.nan, math.nan)
        yield _build_localisation_row(kind, one.maps, "pointing", estimate, count, finding=finding)


def _build_localisation_row(
    kind: str, maps: str, metric: str, estimate: Estimate, cases: int, threshold: float | None = None, finding: str = ""
) -> Row:
    start: dict[str, Value] = {"cases": kind, "maps": maps, "metric": metric, "threshold": threshold}
    return {**start, "finding": finding, "count": cases, **_flatten_estimates(value=estimate)}


def _list_robustness(report: RobustnessReport) -> Iterator[Row]:
    for (corruption, severity), one in report.drops.items():
        start: dict[str, Value] = {"corruption": corruption, "severity": severity, "images": report.images}
        yield {**start, "clean": one.baseline, "corrupted": one.other, **_flatten_estimates(change=one.difference)}
