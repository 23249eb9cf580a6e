"""The model card's sections about answers: how well findings are ranked and called, and what a probability is worth."""

import math

from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import LEVEL
from chestai.metrics.comparison import Comparison
from chestai.metrics.operating_points import PointReport
from chestai.metrics.reliability import CalibrationReport
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import build_not_measured, format_difference, format_estimate, format_share
from chestai.pages.page import Cell, Figure, Note, Section, Table, format_name, format_number, format_percent

POINTS = {
    "youden": "Youden's J: the threshold of the greatest sensitivity + specificity",
    "f1": "F1: the threshold of the greatest F1",
    "sensitivity_95": "Sensitivity of 95 %: the highest threshold that reached it",
    "specificity_95": "Specificity of 95 %: the lowest threshold that reached it",
}
METHODS = {
    "none": "none",
    "platt": "Platt",
    "temperature": "temperature",
    "isotonic": "isotonic",
    "shifted": "shifted",
}


def build_ranking(evidence: Evidence) -> Section:
    """AUROC and AUPRC per finding, their means, and comparisons with other models."""
    report = evidence.report
    how = (
        "AUROC: how often an image with the finding scores higher than one without; 0.5 is chance. AUPRC: the average "
        "precision; chance is the finding's prevalence."
    )
    if report.resamples:
        how += (
            f" Brackets, here and below, hold {100 * LEVEL:.0f} % intervals: percentiles of a bootstrap that draws "
            f"patients, not images, {format_number(report.resamples)} times."
        )
    else:
        how += " No intervals: nothing was resampled, or there are fewer than two patients."
    mean = f"mean of {report.defined} of {len(report.findings)} findings"
    rows: list[list[str | Cell]] = []
    for row in report.findings:
        known = row.positives + row.negatives
        shares = [format_number(row.positives), format_percent(row.positives, known)]
        rows.append([format_name(row.finding), *shares, format_estimate(row.auroc), format_estimate(row.auprc)])
    rows.append([mean, "", "", format_estimate(report.macro_auroc), format_estimate(report.macro_auprc)])
    rows.append(
        ["all pairs in one ranking", "", "", format_estimate(report.micro_auroc), format_estimate(report.micro_auprc)]
    )
    columns = ["finding", "positives", "prevalence", "AUROC", "AUPRC"]
    caption = "Of images whose answer is known; the mean is over findings that some images have and some have not"
    parts: list[Note | Table | Figure] = [Note(how)]
    if math.isfinite(report.macro_auroc.value):
        best_first = sorted(report.findings, key=lambda row: -row.auroc.value if row.auroc.value >= 0 else math.inf)
        names = [mean, *(format_name(row.finding) for row in best_first)]
        values = [report.macro_auroc, *(row.auroc for row in best_first)]
        text = "The line at 0.5 is chance. A finding without a dot is undefined here."
        alt = "AUROC of each finding with its interval, the best first; the table has the numbers."
        parts.append(Figure(plots.plot_intervals(names, {"AUROC": values}, "AUROC", mark=0.5), alt, text))
    parts.append(Table(caption, columns, rows))
    return Section("ranking", "Ranking, per finding", [*parts, *_build_comparison(evidence)])


def _build_comparison(evidence: Evidence) -> list[Note | Table]:
    if not evidence.against:
        return [*build_not_measured(evidence, "against")] if "against" in evidence.missing else []
    rows = [[format_name(name), *_build_comparison_cells(one)] for name, one in evidence.against.items()]
    caption = (
        "Macro-AUROC against other models, on the same images and the same draws of patients; an interval of the "
        "difference that holds 0 does not tell the two apart"
    )
    return [Table(caption, ["against", "its AUROC", "this model's", "difference"], rows)]


def _build_comparison_cells(one: Comparison) -> list[str | Cell]:
    return [format_number(one.baseline, 3), format_number(one.other, 3), format_difference(one.difference)]


def build_operating_points(evidence: Evidence) -> Section:
    """What each finding's thresholds get right and wrong."""
    if not evidence.points:
        return Section("points", "Operating points", build_not_measured(evidence, "points"))
    split = evidence.data.split
    how = "From its threshold on, an image is called positive. " + (
        "Thresholds were chosen on val, the very images that they are judged on here: read this as optimistic."
        if split == "val"
        else f"Thresholds were chosen on val and are judged on {split}, so that a point named after a rate need not "
        "reach it here."
    )
    how += " PPV and NPV hold for the prevalence of these images."
    parts: list[Note | Table] = [Note(how)]
    columns = ["finding", "threshold", "TP", "FP", "TN", "FN", "sensitivity", "specificity", "PPV", "NPV"]
    for point in dict.fromkeys(one.point for one in evidence.points):
        rows = [_build_point_row(one) for one in evidence.points if one.point == point]
        parts.append(Table(POINTS.get(point, format_name(point)), columns, rows))
    return Section("points", "Operating points", parts)


def _build_point_row(one: PointReport) -> list[str | Cell]:
    found = one.confusion
    counts = (
        [format_number(count) for count in (found.tp, found.fp, found.tn, found.fn)]
        if found
        else [format_number(math.nan)] * 4
    )
    rates = [format_share(rate) for rate in (one.sensitivity, one.specificity, one.ppv, one.npv)]
    return [format_name(one.finding), format_number(one.threshold, 4), *counts, *rates]


def build_calibration(evidence: Evidence) -> Section:
    """How far probabilities are from frequencies, before and after."""
    title = "Calibration"
    if not evidence.calibration:
        return Section(
            "calibration", title, [*build_not_measured(evidence, "calibration"), *_build_prevalence_table(evidence)]
        )
    parts: list[Note | Table | Figure] = [Note(_describe_calibration(evidence))]
    curves = {
        METHODS.get(one.method, format_name(one.method)): (one.pooled.predicted, one.pooled.observed)
        for one in evidence.calibration
        if one.pooled.predicted
    }
    if curves:
        alt = "Reliability curves: observed share of positives over mean probability, a line for each method."
        caption = "All findings pooled. On the diagonal probabilities are frequencies; below it, they are too high."
        parts.append(Figure(plots.plot_reliability(curves), alt, caption))
    rows = [
        [
            METHODS.get(one.method, format_name(one.method)) + (" *" if one.method == evidence.in_force else ""),
            format_number(one.macro_ece, 4),
            format_number(one.macro_floor, 4),
            format_number(one.macro_brier, 4),
        ]
        for one in evidence.calibration
    ]
    caption = "Means over findings; * the method that the model carries"
    parts.append(Table(caption, ["method", "ECE", "chance floor", "Brier score"], rows))
    return Section("calibration", title, [*parts, *_build_current_method(evidence), *_build_prevalence_table(evidence)])


def _describe_calibration(evidence: Evidence) -> str:
    how = (
        "ECE, the expected calibration error, is the mean gap between probability and observed frequency over bins. "
        "The chance floor is the ECE that these probabilities would have on as many images if they were perfectly "
        "calibrated: an ECE near it shows no error. Brier score: mean squared error. Of ECE and Brier score, less is "
        "better. Method none: as the network answers."
    )
    if any(one.method == "shifted" for one in evidence.calibration):
        how += " Method shifted: moved to the site's prevalence, as if a finding looked the same there as in val."
    if evidence.data.split == "val":
        return how + " Methods were fitted on val, the very images of this page: read this as optimistic."
    return how + f" Methods were fitted on val and are judged on {evidence.data.split}."


def _build_current_method(evidence: Evidence) -> list[Note | Table]:
    """Per finding, of the method that the model carries."""
    name = METHODS.get(evidence.in_force, format_name(evidence.in_force))
    for one in evidence.calibration:
        if one.method == evidence.in_force:
            return [_build_finding_table(one, name)]
    return [Note(f"The method that the model carries, {name}, was not measured.")]


def _build_finding_table(report: CalibrationReport, name: str) -> Table:
    rows = [
        [
            format_name(one.finding),
            format_number(sum(one.curve.images)),
            format_number(one.ece, 4),
            format_number(one.floor, 4),
            format_number(one.brier, 4),
        ]
        for one in report.findings
    ]
    return Table(f"Per finding: {name}", ["finding", "images", "ECE", "chance floor", "Brier score"], rows)


def _build_prevalence_table(evidence: Evidence) -> list[Note | Table]:
    data = evidence.data
    if not data.val_prevalence:
        return [Note("No answers of val: at what prevalence the probabilities hold is not known here.")]
    rows = [
        [format_name(one), *_build_prevalence_cells(data.val_prevalence.get(one), data.prevalence.get(one))]
        for one in data.prevalence
    ]
    caption = (
        "Prevalence. What was fitted on val holds for val's: where the ratio is far above 1, expect probabilities to "
        "be too low here, where it is far below 1, too high"
    )
    return [Table(caption, ["finding", "val", data.split, "ratio"], rows)] if rows else []


def _build_prevalence_cells(val: float | None, here: float | None) -> list[str]:
    val, here = math.nan if val is None else val, math.nan if here is None else here
    return [
        format_percent(val, digits=2),
        format_percent(here, digits=2),
        format_number(here / val if val else math.nan, 2),
    ]
