"""The evidence as CSV tables: full precision, original names of findings, empty cells for undefined values."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from chestai.evaluation.evidence import Evidence, RobustnessReport
from chestai.evaluation.second_labels import SecondLabels
from chestai.lake.csv_cells import quote_formula
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.coverage import CoverageReport
from chestai.metrics.localisation import OVERLAPS, LocalisationReport, MapReport
from chestai.metrics.operating_points import PointReport
from chestai.metrics.reliability import CalibrationReport, Curve
from chestai.metrics.report import PerformanceReport
from chestai.metrics.retrieval import RetrievalReport
from chestai.metrics.subgroups import SubgroupReport
from chestai.metrics.text_search import TextSearchReport
from chestai.metrics.thresholds import Confusion
from chestai.triage.metrics import CutReport, UrgencyReport
from chestai.triage.queue_simulation import QueueReport

Rows = Iterator[dict[str, Any]]  # all rows of a table have the same columns in the same order

MACRO, MICRO, POOLED = "macro", "micro", "pooled"  # values of the column `finding` for all findings together
UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def render_csv_tables(evidence: Evidence) -> dict[str, str]:
    """Render a table for each measured section: file name -> text.

    Columns `x`, `x_low`, `x_high` are an estimate and its 95 % interval. Shares are in [0, 1], waits in minutes.
    """
    tables: dict[str, Rows] = {
        "ranking.csv": _list_ranking(evidence.performance),
        "operating_points.csv": _list_operating_points(evidence.operating_points),
        "calibration.csv": _list_calibration(evidence.calibration, evidence.calibration_method),
        "reliability_curve.csv": _list_curves(evidence.calibration),
    }
    if evidence.confidence:
        tables["confidence_bands.csv"] = _list_bands(evidence.confidence)
        tables["label_sets.csv"] = _list_label_sets(evidence.confidence)
    if evidence.second_labels:
        tables["second_labels.csv"] = _list_second_labels(evidence.second_labels)
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
    if evidence.retrieval:
        tables["search_by_image.csv"] = _list_retrieval(evidence.retrieval)
    if evidence.text_search:
        tables["search_by_text.csv"] = _list_text_search(evidence.text_search)
    # As objects: in a column with an empty cell, pandas would turn integers into floats.
    frames = {name: pd.DataFrame(_quote_formulas(rows), dtype=object) for name, rows in tables.items()}
    return {name: frame.to_csv(index=False, lineterminator="\n") for name, frame in frames.items() if len(frame)}


def _quote_formulas(rows: Rows) -> list[dict[str, Any]]:
    return [{name: quote_formula(value) for name, value in row.items()} for row in rows]


def _flatten_estimates(**values: Estimate) -> dict[str, float]:
    bounds = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{suffix}": getattr(estimate, field)
        for name, estimate in values.items()
        for suffix, field in bounds.items()
    }


def _flatten_confusion(confusion: Confusion | None) -> dict[str, int | None]:
    return {name: getattr(confusion, name) if confusion else None for name in ("tp", "fp", "tn", "fn")}


def _flatten_rates(report: PointReport | CutReport) -> dict[str, float]:
    rates = {name: getattr(report, name) for name in ("sensitivity", "specificity", "ppv", "npv")}
    return _flatten_estimates(**rates)


def _list_ranking(report: PerformanceReport) -> Rows:
    for row in report.findings:
        known = row.positives + row.negatives
        yield {
            "finding": row.finding,
            "positives": row.positives,
            "negatives": row.negatives,
            "prevalence": row.positives / known if known else None,
            **_flatten_estimates(auroc=row.auroc, auprc=row.auprc),
        }
    unknown = dict.fromkeys(("positives", "negatives", "prevalence"))
    macro = _flatten_estimates(auroc=report.macro_auroc, auprc=report.macro_auprc)
    micro = _flatten_estimates(auroc=report.micro_auroc, auprc=report.micro_auprc)
    yield {"finding": MACRO, **unknown, **macro}
    yield {"finding": MICRO, **unknown, **micro}


def _list_second_labels(report: SecondLabels) -> Rows:
    for row in report.rows:
        yield {
            "finding": row.finding,
            "source": report.source,
            "images": row.images,
            "their_positives": row.theirs.positives,
            "own_positives": row.own.positives,
            **_flatten_estimates(their_auroc=row.theirs.auroc, own_auroc=row.own.auroc, agreement=row.agreement),
        }


def _list_operating_points(points: Sequence[PointReport]) -> Rows:
    for point in points:
        start = {"finding": point.finding, "point": point.point, "threshold": point.threshold}
        yield {**start, **_flatten_confusion(point.confusion), **_flatten_rates(point)}


def _list_calibration(reports: Sequence[CalibrationReport], in_force: str) -> Rows:
    for report in reports:
        start = {"method": report.method, "in_force": int(report.method == in_force)}
        for row in report.findings:
            errors = {"ece": row.ece, "floor": row.floor, "brier": row.brier}
            yield {**start, "finding": row.finding, "images": sum(row.curve.images), **errors}
        means = {"ece": report.macro_ece, "floor": report.macro_floor, "brier": report.macro_brier}
        yield {**start, "finding": MACRO, "images": None, **means}


def _list_curves(reports: Sequence[CalibrationReport]) -> Rows:
    for report in reports:
        for row in report.findings:
            yield from _list_curve_bins(report.method, row.finding, row.curve)
        yield from _list_curve_bins(report.method, POOLED, report.pooled)


def _list_curve_bins(method: str, finding: str, curve: Curve) -> Rows:
    for predicted, observed, images in zip(curve.predicted, curve.observed, curve.images, strict=True):
        start = {"method": method, "finding": finding}
        yield {**start, "predicted": predicted, "observed": observed, "images": images}


def _list_bands(report: CoverageReport) -> Rows:
    """A row for each band: of val, then what was observed in its range."""
    for row in report.findings:
        for band, found in zip(row.bands.bands, row.ranges, strict=True):
            start = {"finding": row.finding, "score_from": band.start, "score_to": band.end}
            val = {"val_images": band.n, "val_patients": band.patients}
            estimates = _flatten_estimates(val=Estimate(band.observed, band.low, band.high), observed=found.observed)
            yield {**start, **val, "images": found.images, **estimates}


def _list_label_sets(report: CoverageReport) -> Rows:
    for row in report.findings:
        start = {"finding": row.finding, "alpha": report.alpha}
        thresholds = {"absent_to": row.thresholds.absent, "present_from": row.thresholds.present}
        counts = {"positives": row.positives, "negatives": row.negatives}
        shares = {name: getattr(row, name) for name in ("present", "absent", "covered", "single", "both", "neither")}
        yield {**start, **thresholds, **counts, **_flatten_estimates(**shares)}


def _list_triage(report: UrgencyReport) -> Rows:
    """A row for each cut-off; all repeat AUROC and AUPRC of the score, and counts are of the cut-off's own bucket."""
    for cut in report.cuts:
        urgent, others = report.counts.get(cut.bucket, (None, None))
        yield {
            "bucket": cut.bucket,
            "cut": cut.cut,
            **_flatten_confusion(cut.confusion),
            **_flatten_rates(cut),
            "urgent_in_bucket": urgent,
            "others_in_bucket": others,
            **_flatten_estimates(auroc=report.auroc, auprc=report.auprc),
        }


def _list_waits(report: QueueReport) -> Rows:
    columns = ("policy", "group", "studies", "mean", "median", "p95", "maximum")
    for wait in report.waits:
        yield {name: getattr(wait, name) for name in columns}


def _list_subgroups(report: SubgroupReport) -> Rows:
    """Measured groups, then groups that were too small, with their number of images only."""
    for group in report.groups:
        start = {"axis": group.axis, "group": group.name, "images": group.images, "patients": group.patients}
        yield {**start, **_flatten_estimates(macro_auroc=group.macro_auroc, fnr=group.fnr)}
    for axis, name, images in report.excluded:
        start = {"axis": axis, "group": name, "images": images, "patients": None}
        yield {**start, **_flatten_estimates(macro_auroc=UNDEFINED, fnr=UNDEFINED)}


def _list_gaps(report: SubgroupReport) -> Rows:
    for gap in report.gaps:
        start = {"axis": gap.axis, "metric": gap.metric, "better": gap.better, "worse": gap.worse}
        yield {**start, **_flatten_estimates(gap=gap.gap), "findings": " ".join(gap.findings)}


def _list_localisation(report: LocalisationReport) -> Rows:
    """metric: pointing, iou or iobb at a threshold, gain of the model. By finding: only pointing, without intervals."""
    for cases, reports in (("all", report.all_cases), ("shown", report.displayed_cases)):
        count = report.cases if cases == "all" else report.cases - report.suppressed
        for maps in reports:
            yield from _list_map(cases, maps, count)
    for control, gain in report.gains.items():
        yield _build_localisation_row("all", control, "gain", gain, report.cases)


def _list_map(cases: str, maps: MapReport, count: int) -> Rows:
    yield _build_localisation_row(cases, maps.kind, "pointing", maps.pointing, count)
    for metric, estimates in (("iou", maps.iou), ("iobb", maps.iobb)):
        for threshold, estimate in zip(OVERLAPS, estimates, strict=True):
            yield _build_localisation_row(cases, maps.kind, metric, estimate, count, threshold=threshold)
    for finding, (pointing, finding_count) in maps.by_finding.items():
        estimate = Estimate(pointing, math.nan, math.nan)
        yield _build_localisation_row(cases, maps.kind, "pointing", estimate, finding_count, finding=finding)


def _build_localisation_row(
    cases: str,
    maps: str,
    metric: str,
    estimate: Estimate,
    count: int,
    threshold: float | None = None,
    finding: str = "",
) -> dict[str, Any]:
    start = {"cases": cases, "maps": maps, "metric": metric, "threshold": threshold}
    return {**start, "finding": finding, "count": count, **_flatten_estimates(value=estimate)}


def _list_robustness(report: RobustnessReport) -> Rows:
    for (corruption, severity), drop in report.drops.items():
        start = {"corruption": corruption, "severity": severity, "images": report.images}
        change = _flatten_estimates(change=drop.difference)
        yield {**start, "clean": drop.baseline, "corrupted": drop.other, **change}


def _list_retrieval(report: RetrievalReport) -> Rows:
    """A row for each ranking of each finding. gain: of the model's precision over this ranking's, only in the mean."""
    for row in report.findings:
        for name in report.rankings:
            start = {"finding": row.finding, "ranking": name, "first": report.first}
            counts = {"queries": row.queries, "relevant": row.relevant}
            values = {"precision": row.precision[name], "average_precision": row.average_precision[name]}
            yield {**start, **counts, **_flatten_estimates(**values, gain=UNDEFINED)}
    for name in report.rankings:
        start = {"finding": MACRO, "ranking": name, "first": report.first, "queries": None, "relevant": None}
        values = {
            "precision": report.macro_precision[name],
            "average_precision": report.macro_average_precision[name],
            "gain": report.gains.get(name, UNDEFINED),
        }
        yield {**start, **_flatten_estimates(**values)}


def _list_text_search(report: TextSearchReport) -> Rows:
    for row in report.results:
        start = {"text": row.text, "first": report.first, "images": row.images, "right": row.right}
        yield {**start, **_flatten_estimates(average_precision=row.average_precision, precision=row.precision)}
