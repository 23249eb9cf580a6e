"""What the columns of a hospital's label table hold: the key of an image, its patient, findings, or something else."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from chestai.errors import UserError
from chestai.labels.findings import KNOWN_FINDINGS, canonicalise
from pipelines.spark.sources.guesses import Guess

UID, FILE, PATIENT, FINDINGS = "SOPInstanceUID", "file", "PatientID", "findings"

# What names of columns mean, in lower case without anything but letters and digits.
ROLES = {
    **dict.fromkeys(("sopinstanceuid", "sopuid", "instanceuid"), UID),
    **dict.fromkeys(("file", "filename", "filepath", "path", "image", "imageid", "imagename", "imagepath"), FILE),
    **dict.fromkeys(("imagefile", "imageindex", "dicom", "dicomfile", "dicompath", "dicomid"), FILE),
    **dict.fromkeys(("patientid", "patient", "subjectid", "subject", "patientnumber", "patientkey"), PATIENT),
    **dict.fromkeys(("findings", "finding", "findinglabels", "labels", "label"), FINDINGS),
}
NO_FINDINGS = {
    "",
    "index",
    "unnamed0",
    "id",
    "age",
    "sex",
    "gender",
    "view",
    "split",
    "fold",
    "rows",
    "columns",
    "year",
}

# Cells of a finding, in lower case: 1, 0, -1 = uncertain, None = not known.
LABELS: dict[str, float | None] = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "pos", "positive"), 1.0),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "neg", "negative"), 0.0),
    **dict.fromkeys(("-1", "-1.0", "uncertain"), -1.0),
    **dict.fromkeys(("", "nan", "null", "none", "na", "n/a", "#n/a", "unknown"), None),
}
MIN_LABELS = 0.9  # of a column's cells, where its name is no known finding


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a label table.

    Attributes:
        roles: Per column, `UID` or `FILE` for the key, `PATIENT`, `FINDINGS`, a finding of the vocabulary, or None.
        delimiter: Between the cells.
    """

    roles: tuple[str | None, ...]
    delimiter: str
    vocabulary: tuple[str, ...]
    guesses: tuple[Guess, ...]

    @property
    def key(self) -> str:
        """The role of the key column."""
        return UID if UID in self.roles else FILE

    def find(self, role: str) -> int | None:
        """Return the place of the column with a role, None without."""
        return self.roles.index(role) if role in self.roles else None


def read_columns(text: str, table: str) -> LabelColumns:
    """Recognise the columns of a label table by their names and cells.

    Args:
        table: Its location, for the errors.

    Raises:
        UserError: It has no key, no finding, or the same column twice.
    """
    lines = text.splitlines()
    first = lines[0].rstrip() if lines else ""
    delimiter = max(",;\t", key=first.count)
    names, *rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter) if row] or [[]]
    cells = [[row[at] for row in rows if len(row) == len(names)] for at in range(len(names))]
    roles = [_find_role(name, column) for name, column in zip(names, cells, strict=True)]
    if UID in roles:
        roles = [None if role == FILE else role for role in roles]
    findings = [role for role in roles if role not in (UID, FILE, PATIENT, None)]
    taken = [role for role in roles if role is not None]
    if (
        (FINDINGS in findings and len(findings) > 1)
        or len({*taken}) != len(taken)
        or not {UID, FILE} & {*taken}
        or not findings
    ):
        raise UserError(
            f"{table} line 1 is {first[:60]!r}, not the header of a label table: one column {UID} or {FILE}, "
            f"and either `{FINDINGS}` or one column a finding, once each"
        )
    if FINDINGS in findings:
        labels = {canonicalise(name) for cell in cells[roles.index(FINDINGS)] for name in cell.split("|")}
        findings = [name for name in KNOWN_FINDINGS if name in labels]
    if not findings:
        raise UserError(f"{table} names no known finding: {', '.join(KNOWN_FINDINGS)}")
    vocabulary = tuple(name for name in findings if name is not None)
    return LabelColumns(tuple(roles), delimiter, vocabulary, tuple(_list_guesses(names, roles)))


def _find_role(name: str, cells: Sequence[str]) -> str | None:
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    if word in ROLES:
        return ROLES[word]
    finding = canonicalise(name)
    if finding in KNOWN_FINDINGS:
        return finding
    filled = [cell.lower() in LABELS for cell in cells if LABELS.get(cell.lower(), 0.0) is not None]
    return finding if word not in NO_FINDINGS and filled and sum(filled) >= MIN_LABELS * len(filled) else None


def _list_guesses(names: Sequence[str], roles: Sequence[str | None]) -> list[Guess]:
    guesses = [
        Guess(f"patients from the column {name}", "source.labels")
        for name, role in zip(names, roles, strict=True)
        if role == PATIENT
    ]
    unread = [name or "without a name" for name, role in zip(names, roles, strict=True) if role is None]
    return [
        *guesses,
        *([Guess(f"columns that are no finding: {', '.join(unread)}", "source.labels")] if unread else []),
    ]
