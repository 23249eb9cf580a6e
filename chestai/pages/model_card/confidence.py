"""The model card's section on what a probability means: bands of observed frequencies, and conformal label sets."""

from chestai.evaluation.evidence import Evidence
from chestai.metrics.coverage import CoverageReport, FindingCoverage
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import build_not_measured, format_share
from chestai.pages.page import DASH, Cell, Figure, Note, Section, Table, format_name, format_number


def build_confidence(evidence: Evidence) -> Section:
    """How often val showed a finding at a like score, whether that holds on the split, and the label sets."""
    report, title = evidence.confidence, "Confidence"
    if report is None:
        return Section("confidence", title, build_not_measured(evidence, "confidence"))
    split = evidence.data.split
    text = (
        "A band says how many of the val images with a like score had the finding, with a 95 % interval in which "
        "images of one patient count as fewer. It speaks of val's population: at another hospital, or after the images "
        "have drifted, frequencies differ."
    )
    if split == "val":
        text += " The bands were measured on val, the same images as on this page, so they agree by construction."
    parts: list[Note | Table | Figure] = [Note(text), *_build_figure(report, split), _build_band_table(report, split)]
    parts += _build_reasons(report)
    return Section("confidence", title, [*parts, Note(_describe_sets(report, split)), _build_set_table(report)])


def _build_figure(report: CoverageReport, split: str) -> list[Figure]:
    panels = {format_name(row.finding): row for row in report.findings if row.bands.bands}
    if not panels:
        return []
    alt = "Observed share of positives over the score, a panel for each finding; confidence_bands.csv has the numbers."
    caption = (
        f"Boxes: the bands of val. Dots: the share in the same range on {split}, with its interval. Line: where "
        "probability and share are equal. An interval that does not touch its box says that val's frequency does not "
        "hold there."
    )
    return [Figure(plots.plot_bands(panels), alt, caption)]


def _build_band_table(report: CoverageReport, split: str) -> Table:
    caption = (
        f"Bands by finding. Differing: bands whose interval and that of {split} have nothing in common. Without: "
        f"{split} images with a score that too few val images come near"
    )
    columns = ["finding", "bands", "scores", "val images per band", "differing", "without"]
    return Table(caption, columns, [_build_band_row(row) for row in report.findings])


def _build_band_row(row: FindingCoverage) -> list[str | Cell]:
    bands = row.bands.bands
    if not bands:
        return [format_name(row.finding), "0", DASH, DASH, DASH, format_number(row.outside)]
    sizes = [band.n for band in bands]
    return [
        format_name(row.finding),
        format_number(len(bands)),
        f"{_format_score(bands[0].start)} to {_format_score(bands[-1].end)}",
        f"{format_number(min(sizes))} to {format_number(max(sizes))}",
        format_number(sum(_differs(row, place) for place in range(len(bands)))),
        format_number(row.outside),
    ]


def _build_reasons(report: CoverageReport) -> list[Note]:
    """Which findings have no bands, and why."""
    reasons = [f"{format_name(row.finding)} ({row.bands.reason})" for row in report.findings if not row.bands.bands]
    return [Note(f"No bands: {', '.join(reasons)}.")] if reasons else []


def _differs(row: FindingCoverage, place: int) -> bool:
    band, found = row.bands.bands[place], row.ranges[place].observed
    return found.low > band.high or found.high < band.low  # an undefined interval differs from none


def _format_score(probability: float) -> str:
    return f"{100 * probability:.2g}%" if probability < 1 else "100%"


def _describe_sets(report: CoverageReport, split: str) -> str:
    level = 100 * (1 - report.alpha)
    text = (
        f"A label set holds the labels, present or absent, that val does not rule out for a score. It is made so that "
        f"{level:.0f} % of the images with a finding have present in their set, and {level:.0f} % of those without it "
        f"have absent (split conformal prediction for each label). The table shows what was reached on {split}. Fewer "
        "single labels mean a less useful model. A set with both labels says that val cannot tell; an empty one, that "
        "the score is unusual for either label."
    )
    rare = [format_name(row.finding) for row in report.findings if row.thresholds.present == 0]
    if rare:
        text += f" Too few val patients have these findings to rule out present at any score: {', '.join(rare)}."
    return text


def _build_set_table(report: CoverageReport) -> Table:
    rows: list[list[str | Cell]] = [
        [
            format_name(row.finding),
            _format_score(row.thresholds.absent),
            _format_score(row.thresholds.present),
            *map(format_share, (row.present, row.absent, row.single, row.both, row.neither)),
        ]
        for row in report.findings
    ]
    columns = ["finding", "absent up to", "present from", "present held", "absent held", "one label", "both", "none"]
    caption = (
        f"Label sets at an error rate of {100 * report.alpha:.0f} %. Present held: of the images with the finding. "
        "Absent held: of those without it. One label, both, none: of all with a known label"
    )
    return Table(caption, columns, rows)
