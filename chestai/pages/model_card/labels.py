"""The model card's section on a second source of labels."""

from chestai.evaluation.evidence import Evidence
from chestai.pages.model_card.cells import format_estimate, format_share
from chestai.pages.page import Cell, Note, Section, Table, format_name, format_number


def build_second_labels(evidence: Evidence) -> list[Section]:
    """The model by both labels of the same images; no section unless another source was given."""
    report = evidence.second_labels
    if report is None:
        return []
    text = (
        f"{format_number(report.images)} of these images, of {format_number(report.patients)} patients, are labelled "
        f"by {report.source} too. Both columns of AUROC are measured on the images whose labels both sources know, "
        "with the same bootstrap samples of patients."
    )
    rows: list[list[str | Cell]] = [
        [
            format_name(row.finding),
            format_number(row.images),
            format_number(row.theirs.positives),
            format_estimate(row.theirs.auroc),
            format_number(row.own.positives),
            format_estimate(row.own.auroc),
            format_share(row.agreement),
        ]
        for row in report.rows
    ]
    parts: list[Note | Table] = [Note(text)]
    if rows:
        columns = [
            "finding",
            "images",
            "positives there",
            "AUROC there",
            "positives here",
            "AUROC here",
            "labels agree",
        ]
        parts.append(Table(f"By the labels of {report.source}, and by those of {evidence.data.source}", columns, rows))
    if report.not_comparable:
        names = ", ".join(map(format_name, report.not_comparable))
        parts.append(Note(f"The model predicts nothing that compares with: {names}."))
    return [Section("labels", "By other labels", parts)]
