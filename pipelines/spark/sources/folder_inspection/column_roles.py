"""What the columns of an unknown label table may be, by their names and cells, with the evidence."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from chestai.labels.demographics import parse_age_years
from chestai.labels.findings import KNOWN_FINDINGS, NO_FINDING, canonicalise
from pipelines.spark.sources.file_names import match_names
from pipelines.spark.sources.label_columns import LABELS, PATIENT, ROLES
from pipelines.spark.sources.label_table.cells import NOT_FRONTAL, NOTHING, NOTHING_OF, PARSERS
from pipelines.spark.sources.label_table.columns import list_columns

MIN_CELLS = 0.9  # of the cells that say something must mean what a role says
MAX_ROWS = 20_000  # looked at
SEPARATORS = ("|", ";", ",")
STUDY = re.compile(r"(?i)study|accession|^exam")
AGE = re.compile(r"(?i)age\b|^age|alter|edad")


@dataclass(frozen=True)
class ColumnRole:
    """What a column may be.

    Attributes:
        role: `image`, `patient`, `study`, `view`, `sex`, `age`, `split`, `finding`, `findings`, or empty: unknown.
        evidence: Why, in a few words.
        share: Of an image column: the share of the files that its cells name.
        separator: Of a column of findings; None for one in a cell.
    """

    column: str
    role: str
    evidence: str
    share: float = 0.0
    separator: str | None = None


def find_roles(frame: pd.DataFrame, files: Sequence[str]) -> list[ColumnRole]:
    """Return what each column may be; the image column is the one that names the most files.

    Args:
        frame: From `label_table.reader.read_table`.
        files: Paths of the image files.
    """
    sample = frame.head(MAX_ROWS)
    images = {name: _name_files(frame[name], files) for name in list_columns(frame)}
    best = max(images, key=lambda name: images[name], default="")
    roles = []
    for name in list_columns(frame):
        if name == best and images[name] > 0:
            told = f"its cells name {images[name]:.0%} of the image files"
            roles.append(ColumnRole(name, "image", told, images[name]))
        else:
            roles.append(_find_role(name, sample[name]))
    return roles


def _name_files(cells: pd.Series, files: Sequence[str]) -> float:
    """Return the share of the files that the cells of a column name."""
    named = {cell.replace("\\", "/") for cell in cells.unique() if cell}
    if not files or not named or max(map(len, named)) < 2:
        return 0.0
    keys = match_names(named, files, "", "").keys
    return sum(key in named for key in keys) / len(files)


def _find_role(name: str, cells: pd.Series) -> ColumnRole:
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    filled = cells[~cells.str.lower().isin(NOTHING)]
    if ROLES.get(word) == PATIENT:
        return ColumnRole(name, "patient", f"its name; {cells.nunique():,} different cells")
    if canonicalise(name) in KNOWN_FINDINGS and _are_labels(filled):
        return ColumnRole(name, "finding", f"its name; {_show(cells)}")
    for kind in ("view", "sex", "split"):
        says = filled[~filled.str.lower().isin(NOTHING_OF[kind])]
        meant = [PARSERS[kind](cell) not in (None, NOT_FRONTAL) for cell in says.unique()]
        if meant and sum(meant) >= MIN_CELLS * len(meant) and len(meant) < 20:
            return ColumnRole(name, kind, _show(cells))
    if AGE.search(name) and len(filled):
        ages = [parse_age_years(cell.upper()) is not None for cell in filled.unique()]
        if sum(ages) >= MIN_CELLS * len(ages):
            return ColumnRole(name, "age", f"its name; {_show(cells)}")
    if STUDY.search(name):
        return ColumnRole(name, "study", f"its name; {cells.nunique():,} different cells")
    return _find_findings(name, filled) or ColumnRole(name, "", _show(cells))


def _are_labels(filled: pd.Series) -> bool:
    return bool(filled.str.lower().isin(LABELS).mean() >= MIN_CELLS) if len(filled) else True


def _find_findings(name: str, filled: pd.Series) -> ColumnRole | None:
    """Return the role of a column that names findings, else None."""
    for separator in (None, *SEPARATORS):
        names = [part.strip("'\"[] ") for cell in filled for part in (cell.split(separator) if separator else [cell])]
        known = [canonicalise(part) in (*KNOWN_FINDINGS, NO_FINDING) for part in names]
        if known and sum(known) >= len(known) / 2:
            return ColumnRole(name, "findings", f"its cells name findings; {_show(filled)}", separator=separator)
    return None


def _show(cells: pd.Series) -> str:
    counts = Counter(cells)
    shown = ", ".join(f"{cell[:30] or 'blank'} ({count:,})" for cell, count in counts.most_common(4))
    return shown + (f" and {len(counts) - 4:,} more" if len(counts) > 4 else "")
