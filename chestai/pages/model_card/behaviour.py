"""The model card's sections about behaviour: for whom it works, where it looks, what upsets it, how long it takes."""

import math
from collections.abc import Iterable, Sequence

from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.localisation import OVERLAPS, LocalisationReport, MapReport
from chestai.metrics.subgroups import GapReport, SubgroupReport
from chestai.pages.model_card import plots as evidence_plots
from chestai.pages.model_card.cells import build_not_measured, format_difference, format_estimate, format_share
from chestai.pages.page import DASH, Cell, Figure, Note, Section, Table, format_name, format_number, format_percent

UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def build_subgroups(evidence: Evidence) -> Section:
    """How the model does for groups of patients and of views."""
    report, title = evidence.subgroups, "Subgroups"
    if report is None:
        return Section("subgroups", title, build_not_measured(evidence, "subgroups"))
    how = (
        "FNR, the false-negative rate: share of images with a finding that stay below its threshold, so that it is "
        "missed. Both numbers are means over those findings that every group of an axis has enough of, so that groups "
        "of one axis compare, but not those of two axes. A difference may come from how ill a group is or how well its "
        "images are labelled."
    )
    parts: list[Note | Table | Figure] = [Note(how), *_build_group_figures(report), *_build_gap_table(report)]
    for axis in dict.fromkeys(group.axis for group in report.groups):
        rows: list[list[str | Cell]] = [
            [
                format_name(group.name),
                format_number(group.images),
                format_number(group.patients),
                format_estimate(group.macro_auroc),
                format_share(group.fnr),
            ]
            for group in report.groups
            if group.axis == axis
        ]
        parts.append(Table(f"By {format_name(axis)}", ["group", "images", "patients", "macro-AUROC", "FNR"], rows))
    if report.left_out:
        few: dict[str, list[str]] = {}
        for axis, name, images in report.left_out:
            few.setdefault(format_name(axis), []).append(f"{format_name(name)} ({format_number(images)})")
        caption = f"Not measured: groups of fewer than {format_number(report.min_images)} images"
        rows = [[axis, "; ".join(names)] for axis, names in few.items()]
        parts.append(Table(caption, ["axis", "groups, with their images"], rows, prose=True))
    return Section("subgroups", title, parts)


def _build_group_figures(report: SubgroupReport) -> list[Figure]:
    """The groups of single axes; crossings are too many for a plot."""
    groups = [group for group in report.groups if "," not in group.axis]
    names = [f"{format_name(group.axis)}: {format_name(group.name)}" for group in groups]
    plots = []
    if _has_any_value(group.macro_auroc for group in groups):
        image = evidence_plots.plot_intervals(names, {"": [group.macro_auroc for group in groups]}, "macro-AUROC")
        alt = "Macro-AUROC of each group with its interval; the tables have the numbers."
        plots.append(Figure(image, alt, "Further right is better. Compare within an axis."))
    if _has_any_value(group.fnr for group in groups):
        image = evidence_plots.plot_intervals(names, {"": [group.fnr for group in groups]}, "FNR", percent=True)
        alt = "False-negative rate of each group with its interval; the tables have the numbers."
        plots.append(Figure(image, alt, "Further left is better: fewer findings missed. Compare within an axis."))
    return plots


def _build_gap_table(report: SubgroupReport) -> list[Table]:
    if not report.gaps:
        return []
    rows = [_build_gap_row(gap) for gap in report.gaps]
    caption = (
        "The widest gap of each axis. Its two groups were picked on these images, so that it tends to be too wide; an "
        "interval that holds 0 shows no difference"
    )
    return [Table(caption, ["axis", "metric", "better", "worse", "gap", "over findings"], rows)]


def _build_gap_row(gap: GapReport) -> list[str | Cell]:
    size = format_share(gap.gap) if gap.metric == "fnr" else format_estimate(gap.gap)
    metric = {"auroc": "macro-AUROC", "fnr": "FNR"}.get(gap.metric, format_name(gap.metric))
    return [
        format_name(gap.axis),
        metric,
        format_name(gap.better),
        format_name(gap.worse),
        size,
        format_number(len(gap.findings)),
    ]


def build_localisation(evidence: Evidence) -> Section:
    """Do maps point into the boxes that readers drew?"""
    report, title = evidence.localisation, "Localisation"
    if report is None:
        return Section("localisation", title, build_not_measured(evidence, "localisation"))
    how = (
        f"{format_number(report.cases)} findings with a drawn box. Of these {format_number(report.suppressed)} "
        f"({format_percent(report.suppressed, report.cases)}) stay below their operating point, where a map is suppressed. "
        f"Maps: {format_name(report.method)}, {report.grid} x {report.grid} cells, enlarged. Pointing game: a map's peak "
        "lies in a box. Maps that follow what was learnt beat the controls; one that does not beat them "
        "shows nothing. A map tells where, not why."
    )
    parts: list[Note | Table | Figure] = [Note(how)]
    for name, label in (("iou", "IoU: intersection over union"), ("iobb", "IoBB: intersection over the map's own box")):
        curves = {
            format_name(one.maps): (OVERLAPS, [at.value for at in getattr(one, name)]) for one in report.all_cases
        }
        if any(math.isfinite(value) for _, values in curves.values() for value in values):
            alt = f"Share of cases by threshold of overlap, {label}; the table has the numbers."
            parts.append(Figure(evidence_plots.plot_overlaps(curves, f"at least this {label}"), alt, "All cases."))
    parts.append(_build_pointing_table(report))
    for kind, maps in (("all cases", report.all_cases), ("shown cases", report.shown)):
        if maps:
            parts += [
                _build_overlap_table(maps, f"{label} of at least ..., {kind}", name) for name, label in _OVERLAP.items()
            ]
    if any(one.by_finding for one in report.all_cases):
        parts.append(_build_pointing_by_finding(report.all_cases))
    return Section("localisation", title, parts)


_OVERLAP = {"iou": "IoU", "iobb": "IoBB"}


def _build_pointing_table(report: LocalisationReport) -> Table:
    shown = {one.maps: one.pointing for one in report.shown}
    rows: list[list[str | Cell]] = []
    for one in report.all_cases:
        gain = report.gains.get(one.maps)
        gains = _format_gain(gain) if gain else ""
        rows.append(
            [format_name(one.maps), format_share(one.pointing), gains, format_share(shown.get(one.maps, UNDEFINED))]
        )
    caption = "Pointing game: share of cases that a map points at; the gain, in percentage points, is over all cases"
    return Table(caption, ["maps", "all cases", "gain of the model over it", "shown cases"], rows)


def _format_gain(gain: Estimate) -> Cell:
    return format_difference(Estimate(100 * gain.value, 100 * gain.low, 100 * gain.high), 1)


def _build_overlap_table(maps: Sequence[MapReport], caption: str, name: str) -> Table:
    rows: list[list[str | Cell]] = [[format_name(one.maps), *map(format_share, getattr(one, name))] for one in maps]
    return Table(caption, ["maps", *(f"{threshold:g}" for threshold in OVERLAPS)], rows)


def _build_pointing_by_finding(maps: Sequence[MapReport]) -> Table:
    findings = dict.fromkeys(finding for one in maps for finding in one.by_finding)
    rows: list[list[str | Cell]] = []
    for finding in findings:
        cells = [one.by_finding.get(finding, (math.nan, 0)) for one in maps]
        counts = max(cases for _, cases in cells)
        rows.append([format_name(finding), format_number(counts), *(format_percent(pointing) for pointing, _ in cells)])
    caption = "Pointing game by finding, all cases; few cases tell little"
    return Table(caption, ["finding", "cases", *(format_name(one.maps) for one in maps)], rows)


def build_robustness(evidence: Evidence) -> Section:
    """What worse images cost."""
    report, title = evidence.robustness, "Robustness"
    if report is None:
        return Section("robustness", title, build_not_measured(evidence, "robustness"))
    how = (
        f"Change of macro-AUROC where the same {format_number(report.images)} images are made worse on purpose, the more the "
        "higher the severity; the same patients are drawn for both. An interval that holds 0 shows no change. Only "
        "these corruptions were tried."
    )
    names = list(dict.fromkeys(corruption for corruption, _ in report.drops))
    severities = sorted({severity for _, severity in report.drops})
    parts: list[Note | Table | Figure] = [Note(how)]
    if _has_any_value(one.difference for one in report.drops.values()):
        series = {}
        for severity in severities:
            found = [report.drops.get((name, severity)) for name in names]
            series[f"severity {severity}"] = [one.difference if one else UNDEFINED for one in found]
        image = evidence_plots.plot_intervals(list(map(format_name, names)), series, "change of macro-AUROC", mark=0)
        alt = "Change of macro-AUROC by corruption and severity, with intervals; the table has the numbers."
        parts.append(Figure(image, alt, "Left of the line is worse than on the images as they are."))
    rows: list[list[str | Cell]] = [
        [
            f"{format_name(name)}, {severity}",
            format_number(one.baseline, 3),
            format_number(one.other, 3),
            format_difference(one.difference),
        ]
        for (name, severity), one in report.drops.items()
    ]
    columns = ["corruption, severity", "as it is", "corrupted", "change"]
    return Section("robustness", title, [*parts, Table("Macro-AUROC", columns, rows)])


def build_latency(evidence: Evidence) -> Section:
    """How long a forward pass takes."""
    report, title = evidence.latency, "Latency"
    if report is None:
        return Section("latency", title, build_not_measured(evidence, "latency"))
    text = (
        f"A forward pass over one image took {_format_milliseconds(report.median)} (median), {_format_milliseconds(report.p95)} "
        f"(95th percentile), on {report.hardware}, in the process that measured: without network, queue or decoding."
    )
    return Section("latency", title, [Note(text)])


def _format_milliseconds(value: float) -> str:
    return f"{format_number(value, 1)} ms" if math.isfinite(value) else DASH


def _has_any_value(estimates: Iterable[Estimate]) -> bool:
    return any(math.isfinite(one.value) for one in estimates)
