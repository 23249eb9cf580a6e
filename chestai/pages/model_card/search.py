"""The model card's section on search: hits of images, beside rankings that know less, and hits of texts."""

import math

from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.retrieval import MODEL, RANDOM, FindingRetrieval, RetrievalReport
from chestai.metrics.text_search import TextSearchReport
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import build_not_measured, format_difference, format_estimate
from chestai.pages.page import Cell, Figure, Note, Section, Table, format_name, format_number, format_percent


def build_search(evidence: Evidence) -> Section:
    """How many of the first hits have the finding that was searched for."""
    images, texts = evidence.retrieval, evidence.text_search
    parts: list[Note | Table | Figure] = []
    parts += build_not_measured(evidence, "retrieval") if images is None else _build_images(images, evidence)
    parts += build_not_measured(evidence, "text_search") if texts is None else _build_texts(texts, evidence)
    return Section("search", "Search", parts)


def _build_images(report: RetrievalReport, evidence: Evidence) -> list[Note | Table | Figure]:
    first, split = report.first, evidence.data.split
    text = (
        f"Search by an image: {format_number(report.queries)} {split} images searched among "
        f"{format_number(report.library)} val images, by exact comparison, without images of the query's patient. "
        f"Precision: the share of the first {first} hits that have the finding of the query. With few such images in "
        "the library it cannot reach 1. Average precision of these hits also rewards their order, and can. Random: "
        "the expected value of a random order; same view: of a random order of the images of the query's view. "
        "Random weights: embeddings of the same network before training. ImageNet weights: those of a network that has "
        "seen no radiograph. Intervals reflect the queries; the library counts as fixed."
    )
    if split == "val":
        text += " The library is the split itself."
    notes = [f"{name}: left out, because {reason}." for name, reason in report.left_out.items()]
    gains = [f"{name} {_format_gain(gain)}" for name, gain in report.gains.items()]
    notes.append(f"The model's precision exceeds, in the mean over findings: {'; '.join(gains)}.")
    return [Note(text), *_build_figure(report), _build_table(report), *map(Note, notes)]


def _format_gain(gain: Estimate) -> str:
    cell = format_difference(gain)
    return f"by {cell.text} {cell.note}".strip()


def _build_figure(report: RetrievalReport) -> list[Figure]:
    rows = [row for row in report.findings if not _is_undefined(row)]
    if not rows:
        return []
    names = [*(format_name(row.finding) for row in rows), "mean"]
    series = {name: [*(row.precision[name] for row in rows), report.macro_precision[name]] for name in report.rankings}
    label = f"share of the first {report.first} hits that have the query's finding"
    alt = f"{label} by finding and ranking; search_by_image.csv has the numbers."
    caption = "The further the model lies to the right of the other rankings, the more of the finding it has learnt."
    return [Figure(plots.plot_intervals(names, series, label, percent=True), alt.capitalize(), caption)]


def _is_undefined(row: FindingRetrieval) -> bool:
    return math.isnan(row.precision[MODEL].value)


def _build_table(report: RetrievalReport) -> Table:
    others = [name for name in report.rankings if name != MODEL]
    rows: list[list[str | Cell]] = [
        [
            format_name(row.finding),
            format_number(row.queries),
            format_number(row.relevant),
            format_estimate(row.precision[MODEL]),
            *(format_number(row.precision[name].value, 3) for name in others),
            format_estimate(row.average_precision[MODEL]),
            format_number(row.average_precision[RANDOM].value, 3),
        ]
        for row in report.findings
    ]
    defined = sum(not _is_undefined(row) for row in report.findings)
    rows.append(
        [
            f"mean of {defined} of {len(report.findings)} findings",
            "",
            "",
            format_estimate(report.macro_precision[MODEL]),
            *(format_number(report.macro_precision[name].value, 3) for name in others),
            format_estimate(report.macro_average_precision[MODEL]),
            format_number(report.macro_average_precision[RANDOM].value, 3),
        ]
    )
    at = f"@{report.first}"
    columns = ["finding", "queries", "in library", f"precision{at}", *others, f"mAP{at}", f"{RANDOM} mAP{at}"]
    return Table("Search by an image with a finding", columns, rows)


def _build_texts(report: TextSearchReport, evidence: Evidence) -> list[Note | Table | Figure]:
    text = (
        f"Search by a text among the {evidence.data.split} images. A text is read by the parser of search, and images "
        "are ranked by the product of calibrated probabilities; for a single finding that is the ranking of AUROC and "
        "AUPRC above. Texts with two findings are of the pairs that most images have."
    )
    rows: list[list[str | Cell]] = [
        [
            row.text,
            format_number(row.right),
            format_percent(row.right, row.images),
            format_estimate(row.precision),
            format_estimate(row.average_precision),
        ]
        for row in report.results
    ]
    columns = ["text", "images", "share (chance)", f"precision@{report.first}", "average precision"]
    parts: list[Note | Table | Figure] = [Note(text)]
    if rows:
        parts.append(Table("Images whose labels are what the text asks for", columns, rows))
    if report.outside:
        parts.append(Note(f"Not in this model's vocabulary: {', '.join(report.outside)}."))
    return parts
