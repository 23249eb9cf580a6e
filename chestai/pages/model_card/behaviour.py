"""The model card's sections on behaviour: subgroups, localisation, robustness, latency."""

import math
from collections.abc import Iterable, Sequence

from chestai.evaluation.evidence import Evidence, RobustnessReport
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.localisation import OVERLAPS, LocalisationReport, MapReport
from chestai.metrics.subgroups import GapReport, GroupReport, SubgroupReport
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import build_not_measured, format_difference, format_estimate, format_share
from chestai.pages.page import DASH, Cell, Figure, Note, Section, Table, format_name, format_number, format_percent

UNDEFINED = Estimate(math.nan, math.nan, math.nan)
OVERLAP_NAMES = {"iou": "IoU", "iobb": "IoBB"}
OVERLAP_LABELS = {"iou": "IoU (intersection over union)", "iobb": "IoBB (intersection over the heatmap's own box)"}


def build_subgroups(evidence: Evidence) -> Section:
    """How the model does for groups of patients and for views."""
    report, title = evidence.subgroups, "Subgroups"
    if report is None:
        return Section("subgroups", title, build_not_measured(evidence, "subgroups"))
    text = (
        "FNR, the false-negative rate, is the share of images with a finding that score below its threshold and are "
        "missed. Both numbers are means over the findings that are frequent enough in every group of an axis. Compare "
        "groups within an axis, but not across axes. Differences may also come from how ill the groups are or how well "
        "their images are labelled."
    )
    parts: list[Note | Table | Figure] = [Note(text), *_build_group_figures(report), *_build_gap_table(report)]
    for axis in dict.fromkeys(group.axis for group in report.groups):
        rows = [_build_group_row(group) for group in report.groups if group.axis == axis]
        columns = ["group", "images", "patients", "macro-AUROC", "FNR"]
        parts.append(Table(f"By {format_name(axis)}", columns, rows))
    if report.excluded:
        small: dict[str, list[str]] = {}
        for axis, name, images in report.excluded:
            small.setdefault(format_name(axis), []).append(f"{format_name(name)} ({format_number(images)})")
        caption = f"Not measured: groups of fewer than {format_number(report.min_images)} images"
        left_out = [[axis, "; ".join(names)] for axis, names in small.items()]
        parts.append(Table(caption, ["axis", "groups (images)"], left_out, prose=True))
    return Section("subgroups", title, parts)


def _build_group_row(group: GroupReport) -> list[str | Cell]:
    counts = [format_number(group.images), format_number(group.patients)]
    return [format_name(group.name), *counts, format_estimate(group.macro_auroc), format_share(group.fnr)]


def _build_group_figures(report: SubgroupReport) -> list[Figure]:
    """The groups of single axes; there are too many combinations for a plot."""
    groups = [group for group in report.groups if "," not in group.axis]
    names = [f"{format_name(group.axis)}: {format_name(group.name)}" for group in groups]
    figures = []
    if _has_any_value(group.macro_auroc for group in groups):
        image = plots.plot_intervals(names, {"": [group.macro_auroc for group in groups]}, "macro-AUROC")
        alt = "Macro-AUROC of each group with its interval; the tables have the numbers."
        figures.append(Figure(image, alt, "Further right is better. Compare groups within an axis."))
    if _has_any_value(group.fnr for group in groups):
        image = plots.plot_intervals(names, {"": [group.fnr for group in groups]}, "FNR", percent=True)
        alt = "False-negative rate of each group with its interval; the tables have the numbers."
        caption = "Further left is better: fewer findings are missed. Compare groups within an axis."
        figures.append(Figure(image, alt, caption))
    return figures


def _build_gap_table(report: SubgroupReport) -> list[Table]:
    if not report.gaps:
        return []
    rows = [_build_gap_row(gap) for gap in report.gaps]
    caption = (
        "The widest gap of each axis. The two groups were picked on these images, so the gap tends to be "
        "overestimated; an interval that includes 0 shows no difference"
    )
    return [Table(caption, ["axis", "metric", "better", "worse", "gap", "number of findings"], rows)]


def _build_gap_row(gap: GapReport) -> list[str | Cell]:
    size = format_share(gap.gap) if gap.metric == "fnr" else format_estimate(gap.gap)
    metric = {"auroc": "macro-AUROC", "fnr": "FNR"}.get(gap.metric, format_name(gap.metric))
    groups = [format_name(gap.better), format_name(gap.worse)]
    return [format_name(gap.axis), metric, *groups, size, format_number(len(gap.findings))]


def build_localisation(evidence: Evidence) -> Section:
    """Whether heatmaps point into the boxes that readers drew."""
    report, title = evidence.localisation, "Localisation"
    if report is None:
        return Section("localisation", title, build_not_measured(evidence, "localisation"))
    suppressed = f"{format_number(report.suppressed)} ({format_percent(report.suppressed, report.cases)})"
    text = (
        f"A case is a finding with a drawn box; there are {format_number(report.cases)}. In {suppressed} of them the "
        f"finding stays below its operating point, where no heatmap is shown. Heatmaps: {format_name(report.method)}, "
        f"{report.grid} x {report.grid} cells, enlarged. In the pointing game, a heatmap scores if its peak lies in a "
        "box. Heatmaps that reflect what the model learned beat the controls; otherwise they show nothing. A heatmap "
        "says where, not why."
    )
    parts: list[Note | Table | Figure] = [Note(text), *_build_overlap_figures(report), _build_pointing_table(report)]
    for cases, maps in (("all cases", report.all_cases), ("shown cases", report.displayed_cases)):
        if maps:
            parts += [
                _build_overlap_table(maps, metric, f"Share of cases that reach each {name}, {cases}")
                for metric, name in OVERLAP_NAMES.items()
            ]
    if any(maps.by_finding for maps in report.all_cases):
        parts.append(_build_pointing_by_finding(report.all_cases))
    return Section("localisation", title, parts)


def _build_overlap_figures(report: LocalisationReport) -> list[Figure]:
    figures = []
    for metric, label in OVERLAP_LABELS.items():
        curves = {
            format_name(maps.kind): (OVERLAPS, [estimate.value for estimate in getattr(maps, metric)])
            for maps in report.all_cases
        }
        if any(math.isfinite(value) for _, values in curves.values() for value in values):
            alt = f"Share of cases that reach each threshold of {label}; the table has the numbers."
            figures.append(Figure(plots.plot_overlaps(curves, f"threshold of {label}"), alt, "All cases."))
    return figures


def _build_pointing_table(report: LocalisationReport) -> Table:
    shown = {maps.kind: maps.pointing for maps in report.displayed_cases}
    rows: list[list[str | Cell]] = []
    for maps in report.all_cases:
        gain = report.gains.get(maps.kind)
        cells = [format_share(maps.pointing), _format_gain(gain) if gain else ""]
        rows.append([format_name(maps.kind), *cells, format_share(shown.get(maps.kind, UNDEFINED))])
    caption = (
        "Pointing game: share of cases in which the peak lies in a box. The model's gain over a control is in "
        "percentage points, over all cases"
    )
    return Table(caption, ["heatmap", "all cases", "model's gain", "shown cases"], rows)


def _format_gain(gain: Estimate) -> Cell:
    return format_difference(Estimate(100 * gain.value, 100 * gain.low, 100 * gain.high), 1)


def _build_overlap_table(reports: Sequence[MapReport], metric: str, caption: str) -> Table:
    rows: list[list[str | Cell]] = [
        [format_name(maps.kind), *map(format_share, getattr(maps, metric))] for maps in reports
    ]
    return Table(caption, ["heatmap", *(f"{threshold:g}" for threshold in OVERLAPS)], rows)


def _build_pointing_by_finding(reports: Sequence[MapReport]) -> Table:
    rows: list[list[str | Cell]] = []
    for finding in dict.fromkeys(finding for maps in reports for finding in maps.by_finding):
        results = [maps.by_finding.get(finding, (math.nan, 0)) for maps in reports]
        cases = max(count for _, count in results)
        shares = [format_percent(pointing) for pointing, _ in results]
        rows.append([format_name(finding), format_number(cases), *shares])
    caption = "Pointing game by finding, all cases; small numbers of cases say little"
    return Table(caption, ["finding", "cases", *(format_name(maps.kind) for maps in reports)], rows)


def build_robustness(evidence: Evidence) -> Section:
    """How much accuracy is lost on degraded images."""
    report, title = evidence.robustness, "Robustness"
    if report is None:
        return Section("robustness", title, build_not_measured(evidence, "robustness"))
    text = (
        f"The change in macro-AUROC when {format_number(report.images)} images are corrupted on purpose, at increasing "
        "severity. Clean and corrupted images are compared on the same bootstrap samples of patients. An interval that "
        "includes 0 shows no change. No other corruptions were tried."
    )
    rows: list[list[str | Cell]] = [
        [
            f"{format_name(name)}, {severity}",
            format_number(drop.baseline, 3),
            format_number(drop.other, 3),
            format_difference(drop.difference),
        ]
        for (name, severity), drop in report.drops.items()
    ]
    table = Table("Macro-AUROC", ["corruption, severity", "clean", "corrupted", "change"], rows)
    return Section("robustness", title, [Note(text), *_build_robustness_figure(report), table])


def _build_robustness_figure(report: RobustnessReport) -> list[Figure]:
    if not _has_any_value(drop.difference for drop in report.drops.values()):
        return []
    names = list(dict.fromkeys(name for name, _ in report.drops))
    series = {}
    for severity in sorted({severity for _, severity in report.drops}):
        drops = [report.drops.get((name, severity)) for name in names]
        series[f"severity {severity}"] = [drop.difference if drop else UNDEFINED for drop in drops]
    image = plots.plot_intervals(list(map(format_name, names)), series, "change in macro-AUROC", mark=0)
    alt = "Change in macro-AUROC by corruption and severity, with intervals; the table has the numbers."
    return [Figure(image, alt, "Left of the line is worse than on clean images.")]


def build_latency(evidence: Evidence) -> Section:
    """How long a forward pass takes."""
    report, title = evidence.latency, "Latency"
    if report is None:
        return Section("latency", title, build_not_measured(evidence, "latency"))
    median, p95 = _format_milliseconds(report.median), _format_milliseconds(report.p95)
    text = (
        f"A forward pass over one image took {median} (median), {p95} (95th percentile), on {report.hardware}. "
        "Transfer over the network, queueing and decoding are not included."
    )
    return Section("latency", title, [Note(text)])


def _format_milliseconds(value: float) -> str:
    return f"{format_number(value, 1)} ms" if math.isfinite(value) else DASH


def _has_any_value(estimates: Iterable[Estimate]) -> bool:
    return any(math.isfinite(estimate.value) for estimate in estimates)
