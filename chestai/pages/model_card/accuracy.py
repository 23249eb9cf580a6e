"""The model card's sections on predictions: AUROC and AUPRC, operating points, calibration."""

import math

from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import CONFIDENCE_LEVEL
from chestai.metrics.reliability import CalibrationReport
from chestai.metrics.report import PerformanceReport
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import (
    CONFUSION_COLUMNS,
    build_not_measured,
    format_confusion,
    format_difference,
    format_estimate,
)
from chestai.pages.page import Cell, Figure, Note, Section, Table, format_name, format_number, format_percent

POINTS = {
    "youden": "Youden's J: the threshold with the highest sum of sensitivity and specificity",
    "f1": "F1: the threshold with the highest F1 score",
    "sensitivity_95": "Sensitivity of 95 %: the highest threshold that reached it on val",
    "specificity_95": "Specificity of 95 %: the lowest threshold that reached it on val",
}
METHODS = {
    "none": "none",
    "platt": "Platt",
    "temperature": "temperature",
    "isotonic": "isotonic",
    "shifted": "shifted",
}


def build_ranking(evidence: Evidence) -> Section:
    """AUROC and AUPRC of each finding, their means, and the comparison with the champion."""
    report = evidence.performance
    text = (
        "AUROC: the probability that an image with the finding scores higher than one without it; 0.5 is chance. "
        "AUPRC: average precision; chance is the finding's prevalence."
    )
    if report.resamples:
        text += (
            f" Brackets, here and below, are {100 * CONFIDENCE_LEVEL:.0f} % confidence intervals from "
            f"{format_number(report.resamples)} bootstrap samples of patients."
        )
    else:
        text += " There are no intervals: bootstrap is switched off, or there are fewer than two patients."
    mean = f"mean of {report.defined} of {len(report.findings)} findings"
    rows: list[list[str | Cell]] = []
    for row in report.findings:
        counts = [format_number(row.positives), format_percent(row.positives, row.positives + row.negatives)]
        rows.append([format_name(row.finding), *counts, format_estimate(row.auroc), format_estimate(row.auprc)])
    rows.append([mean, "", "", format_estimate(report.macro_auroc), format_estimate(report.macro_auprc)])
    micro = [format_estimate(report.micro_auroc), format_estimate(report.micro_auprc)]
    rows.append(["all findings pooled", "", "", *micro])
    caption = "Images with a known label; the mean is over findings with both positive and negative images"
    table = Table(caption, ["finding", "positives", "prevalence", "AUROC", "AUPRC"], rows)
    parts = [Note(text), *_build_auroc_figure(report, mean), table, *_build_comparison(evidence)]
    return Section("ranking", "AUROC and AUPRC by finding", parts)


def _build_auroc_figure(report: PerformanceReport, mean: str) -> list[Figure]:
    if not math.isfinite(report.macro_auroc.value):
        return []
    best_first = sorted(report.findings, key=lambda row: -row.auroc.value if row.auroc.value >= 0 else math.inf)
    names = [mean, *(format_name(row.finding) for row in best_first)]
    values = [report.macro_auroc, *(row.auroc for row in best_first)]
    image = plots.plot_intervals(names, {"AUROC": values}, "AUROC", mark=0.5)
    alt = "AUROC of each finding with its interval, best first; the table has the numbers."
    return [Figure(image, alt, "The line at 0.5 is chance. A finding without a dot has no defined AUROC here.")]


def _build_comparison(evidence: Evidence) -> list[Note | Table]:
    if not evidence.comparisons:
        return [*build_not_measured(evidence, "comparisons")] if "comparisons" in evidence.missing else []
    rows: list[list[str | Cell]] = [
        [
            format_name(name),
            format_number(comparison.baseline, 3),
            format_number(comparison.other, 3),
            format_difference(comparison.difference),
        ]
        for name, comparison in evidence.comparisons.items()
    ]
    caption = (
        "Macro-AUROC compared with other models on the same images and bootstrap samples; an interval that includes 0 "
        "shows no difference"
    )
    return [Table(caption, ["other model", "its AUROC", "this model's AUROC", "difference"], rows)]


def build_operating_points(evidence: Evidence) -> Section:
    """What the thresholds of each finding get right and wrong."""
    if not evidence.operating_points:
        return Section("points", "Operating points", build_not_measured(evidence, "operating_points"))
    split = evidence.data.split
    text = "An image is called positive if its probability reaches the threshold. " + (
        "The thresholds were chosen on val, the same images as on this page, so the results are optimistic."
        if split == "val"
        else f"The thresholds were chosen on val and are evaluated on {split}, so a target such as 95 % sensitivity "
        "may not be reached exactly."
    )
    text += " PPV and NPV depend on the prevalence in these images."
    parts: list[Note | Table] = [Note(text)]
    for name in dict.fromkeys(point.point for point in evidence.operating_points):
        rows: list[list[str | Cell]] = [
            [format_name(point.finding), format_number(point.threshold, 4), *format_confusion(point)]
            for point in evidence.operating_points
            if point.point == name
        ]
        parts.append(Table(POINTS.get(name, format_name(name)), ["finding", "threshold", *CONFUSION_COLUMNS], rows))
    return Section("points", "Operating points", parts)


def build_calibration(evidence: Evidence) -> Section:
    """How far probabilities are from observed frequencies, before and after calibration."""
    title, reports = "Calibration", evidence.calibration
    if not reports:
        return Section(
            "calibration", title, [*build_not_measured(evidence, "calibration"), *_compare_prevalence(evidence)]
        )
    parts: list[Note | Table | Figure] = [Note(_describe_calibration(evidence))]
    curves = {
        _format_method(report.method): (report.pooled.predicted, report.pooled.observed)
        for report in reports
        if report.pooled.predicted
    }
    if curves:
        alt = "Reliability curves: observed share of positives over mean probability, one line for each method."
        caption = "All findings pooled. On the diagonal, probabilities match frequencies; below it, they are too high."
        parts.append(Figure(plots.plot_reliability(curves), alt, caption))
    rows = [
        [
            _format_method(report.method) + (" *" if report.method == evidence.calibration_method else ""),
            format_number(report.macro_ece, 4),
            format_number(report.macro_floor, 4),
            format_number(report.macro_brier, 4),
        ]
        for report in reports
    ]
    caption = "Means over findings; * marks the model's own method"
    parts.append(Table(caption, ["method", "ECE", "chance floor", "Brier score"], rows))
    return Section("calibration", title, [*parts, *_build_current_method(evidence), *_compare_prevalence(evidence)])


def _format_method(method: str) -> str:
    return METHODS.get(method, format_name(method))


def _describe_calibration(evidence: Evidence) -> str:
    text = (
        "ECE, the expected calibration error, is the mean gap between predicted probability and observed frequency "
        "over bins. The chance floor is the ECE that perfectly calibrated probabilities would show on this many "
        "images; an ECE near it is no evidence of miscalibration. The Brier score is the mean squared error. Lower is "
        "better for both. Method none: the network's own probabilities."
    )
    if any(report.method == "shifted" for report in evidence.calibration):
        text += (
            " Method shifted: adapted to the site's prevalence, assuming that findings look the same there as in val."
        )
    if evidence.data.split == "val":
        return f"{text} The methods were fitted on val, the same images as on this page, so the results are optimistic."
    return f"{text} The methods were fitted on val and are evaluated on {evidence.data.split}."


def _build_current_method(evidence: Evidence) -> list[Note | Table]:
    """The model's own calibration method, by finding."""
    name = _format_method(evidence.calibration_method)
    for report in evidence.calibration:
        if report.method == evidence.calibration_method:
            return [_build_finding_table(report, name)]
    return [Note(f"The model's own method, {name}, was not measured.")]


def _build_finding_table(report: CalibrationReport, name: str) -> Table:
    rows = [
        [
            format_name(row.finding),
            format_number(sum(row.curve.images)),
            format_number(row.ece, 4),
            format_number(row.floor, 4),
            format_number(row.brier, 4),
        ]
        for row in report.findings
    ]
    return Table(f"By finding: {name}", ["finding", "images", "ECE", "chance floor", "Brier score"], rows)


def _compare_prevalence(evidence: Evidence) -> list[Note | Table]:
    data = evidence.data
    if not data.val_prevalence:
        text = "There are no predictions for val, so the prevalence at which the probabilities hold is not known."
        return [Note(text)]
    rows: list[list[str | Cell]] = []
    for finding, prevalence in data.prevalence.items():
        val = data.val_prevalence.get(finding, math.nan)
        ratio = format_number(prevalence / val if val else math.nan, 2)
        rows.append([format_name(finding), format_percent(val, digits=2), format_percent(prevalence, digits=2), ratio])
    caption = (
        "Prevalence. Calibration holds at the prevalence of val: expect probabilities that are too low if the ratio is "
        "far above 1, and too high if it is far below 1"
    )
    return [Table(caption, ["finding", "val", data.split, "ratio"], rows)] if rows else []
