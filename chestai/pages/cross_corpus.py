"""The page and the table of a model on several corpora."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from chestai.evaluation.cross_corpus import CorpusReport
from chestai.lake.csv_cells import write_csv
from chestai.pages.model_card.cells import format_estimate, format_signed
from chestai.pages.page import Cell, Note, Page, Section, Table, format_name, format_number, format_percent

SUMMARY = (
    "Each corpus is measured on its test split. The drop is over the findings that both corpora label. Calibration to "
    "the prevalence of a corpus uses the labels of its images that are not tested; it changes no ranking. ECE: mean "
    "gap between probability and frequency; chance alone gives the number behind it."
)


def build_cross_corpus_page(title: str, reports: Sequence[CorpusReport], banner: str) -> Page:
    """Show the corpora one below the other, the model's own first; then each finding."""
    rows: list[list[str | Cell]] = []
    for report in reports:
        shifted = report.shifted
        rows.append(
            [
                report.name,
                format_number(report.performance.images),
                f"{len(report.findings)}",
                format_estimate(report.performance.macro_auroc),
                format_signed(-report.drop) if report is not reports[0] else "",
                _show_ece(report.as_trained.macro_ece, report.as_trained.macro_floor),
                _show_ece(shifted.macro_ece, shifted.macro_floor) if shifted else "prevalence not known",
                format_number(report.as_trained.macro_brier, 4),
                format_number(shifted.macro_brier, 4) if shifted else "",
            ]
        )
    columns = ["corpus", "images", "findings", "macro-AUROC", "against home"]
    columns += ["ECE as trained", "ECE at its prevalence", "Brier as trained", "Brier at its prevalence"]
    summary = Section(
        "corpora", "The model on each corpus", [Note(SUMMARY), Table("Means over findings", columns, rows)]
    )
    findings = [_build_findings(report) for report in reports]
    facts = [("home", reports[0].name), ("other corpora", ", ".join(report.name for report in reports[1:]))]
    return Page(title, "across corpora", facts, banner, [summary, *findings])


def _build_findings(report: CorpusReport) -> Section:
    shifted = report.shifted.findings if report.shifted else (None,) * len(report.findings)
    rows: list[list[str | Cell]] = [
        [
            format_name(ranked.finding),
            format_number(ranked.positives),
            format_percent(ranked.positives, ranked.positives + ranked.negatives),
            format_estimate(ranked.auroc),
            format_number(before.ece, 3),
            format_number(after.ece, 3) if after else "",
        ]
        for ranked, before, after in zip(report.performance.findings, report.as_trained.findings, shifted, strict=True)
    ]
    columns = ["finding", "positives", "prevalence", "AUROC", "ECE as trained", "ECE at its prevalence"]
    return Section(f"corpus-{report.name}", report.name, [Table("Its test images", columns, rows)])


def _show_ece(ece: float, floor: float) -> str:
    return f"{format_number(ece, 3)} ({format_number(floor, 3)})"


def render_cross_corpus_csv(reports: Sequence[CorpusReport]) -> bytes:
    """One row per corpus and finding, and one with the means (finding `macro`)."""
    sink = pa.BufferOutputStream()
    write_csv(pa.Table.from_pylist([row for report in reports for row in _list_rows(report)]), sink)
    return bytes(sink.getvalue())


def _list_rows(report: CorpusReport) -> list[dict[str, Any]]:
    name, shifted = report.name, report.shifted
    macro = report.performance.macro_auroc
    means = {
        "corpus": name,
        "finding": "macro",
        "positives": None,
        "auroc": macro.value,
        "auroc_low": macro.low,
        "auroc_high": macro.high,
        "auroc_home": report.home.value,
        "ece": report.as_trained.macro_ece,
        "ece_floor": report.as_trained.macro_floor,
        "ece_shifted": shifted.macro_ece if shifted else None,
        "brier": report.as_trained.macro_brier,
        "brier_shifted": shifted.macro_brier if shifted else None,
    }
    rows = []
    for at, ranked in enumerate(report.performance.findings):
        before, after = report.as_trained.findings[at], shifted.findings[at] if shifted else None
        rows.append(
            {
                "corpus": name,
                "finding": ranked.finding,
                "positives": ranked.positives,
                "auroc": ranked.auroc.value,
                "auroc_low": ranked.auroc.low,
                "auroc_high": ranked.auroc.high,
                "auroc_home": None,
                "ece": before.ece,
                "ece_floor": before.floor,
                "ece_shifted": after.ece if after else None,
                "brier": before.brier,
                "brier_shifted": after.brier if after else None,
            }
        )
    return [means, *rows]
