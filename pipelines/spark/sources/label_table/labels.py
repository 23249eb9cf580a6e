"""The findings of the rows of a label table, as codes: from a column each, or from their names in one column."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chestai.config.label_table import Labels
from chestai.errors import UserError
from chestai.labels.findings import KNOWN_FINDINGS, NO_FINDING, canonicalise, merge_vocabularies
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_columns import LABELS
from pipelines.spark.sources.label_table.columns import Rows, list_columns

POSITIVE, NEGATIVE, UNCERTAIN, UNKNOWN = 1, 0, -1, -2
OTHERS = "*"  # in `source.labels.names`: any name that is not given
MAX_UNKNOWN = 0.1  # of the cells
QUOTES = "'\"[]() "


@dataclass(frozen=True)
class RowLabels:
    """The labels of all rows.

    Attributes:
        codes: int8, rows x findings: `POSITIVE`, `NEGATIVE`, `UNCERTAIN`, `UNKNOWN`.
        problems: Per row what is wrong with its labels, None if nothing.
        guesses: What was guessed, or is not read.
    """

    vocabulary: tuple[str, ...]
    codes: np.ndarray
    problems: pd.Series
    guesses: tuple[Guess, ...]


def read_labels(rows: Rows, labels: Labels, words: Mapping[str, str]) -> RowLabels:
    """Read the labels of all rows.

    Args:
        words: `source.words.label`.

    Raises:
        UserError: A column is not there, no finding is named, or more than a tenth of the cells are no labels.
    """
    if labels.column is not None:
        return _read_names(rows.find(labels.column, "source.labels.column"), labels)
    return _read_columns(rows, labels, words)


def _read_columns(rows: Rows, labels: Labels, words: Mapping[str, str]) -> RowLabels:
    columns, guesses = _choose_columns(rows, labels)
    meanings: dict[str, float | None] = {**LABELS, **{word.lower(): LABELS[own] for word, own in words.items()}}
    blank = {"unknown": UNKNOWN, "negative": NEGATIVE}[labels.blank]
    vocabulary = merge_vocabularies([list(columns.values())])
    codes = np.full((len(rows.frame), len(vocabulary)), UNKNOWN, np.int8)
    problems = pd.Series(None, index=rows.frame.index, dtype=object)
    for column, finding in columns.items():
        cells = rows.find(column, "source.labels.columns").str.lower()
        bad = ~cells.isin(meanings)
        if bad.sum() > MAX_UNKNOWN * len(cells):
            examples = ", ".join(map(repr, cells[bad].value_counts().index[:4]))
            raise UserError(
                f"source.labels.columns: {column} holds {examples}, which is no label: map it with source.words.label"
            )
        problems[bad & problems.isnull()] = f"the column {column} is not 1, 0, -1 or blank"
        of_cell = {cell: blank if (code := meanings.get(cell)) is None else int(code) for cell in cells.unique()}
        codes[:, vocabulary.index(finding)] = cells.map(of_cell)
    return RowLabels(vocabulary, codes, problems, guesses)


def _choose_columns(rows: Rows, labels: Labels) -> tuple[dict[str, str], tuple[Guess, ...]]:
    """Return column -> finding: as configured, or the columns named like findings."""
    if labels.columns is not None:
        given = labels.columns if isinstance(labels.columns, dict) else {name: name for name in labels.columns}
        columns = {name: name_finding(finding) for name, finding in given.items()}
        if not columns:
            raise UserError("source.labels.columns is empty: name one column of a finding at least")
    else:
        own = list_columns(rows.frame)
        columns = {name: canonicalise(name) for name in own if canonicalise(name) in KNOWN_FINDINGS}
        if not columns:
            raise UserError(
                f"{rows.where} has no column named like a finding: set source.labels.columns or source.labels.column; "
                f"it has {', '.join(own[:40])}"
            )
    twice = next((finding for finding, count in Counter(columns.values()).items() if count > 1), None)
    if twice is not None:
        both = " and ".join(name for name, finding in columns.items() if finding == twice)
        raise UserError(f"source.labels.columns: {both} of {rows.where} both mean {twice}: name one of them")
    guess = Guess(f"findings from the columns {', '.join(columns)}", "source.labels.columns")
    return columns, () if labels.columns is not None else (guess,)


def _read_names(cells: pd.Series, labels: Labels) -> RowLabels:
    names = {_fold(name): finding for name, finding in labels.names.items()}
    parsed = {cell: _split_cell(cell, labels.separator) for cell in cells.unique()}
    meant = {cell: [_find_finding(name, names) for name in of_cell] for cell, of_cell in parsed.items()}
    vocabulary = merge_vocabularies([[finding for of_cell in meant.values() for finding in of_cell if finding]])
    if not vocabulary:
        examples = ", ".join(map(repr, cells.value_counts().index[:4]))
        raise UserError(f"source.labels.column={labels.column} names no finding: it holds {examples}")
    silent = {cell for cell, of_cell in parsed.items() if not of_cell}
    blank = UNKNOWN if labels.blank == "unknown" else NEGATIVE
    codes_of = {
        cell: _encode(of_cell, vocabulary, blank if cell in silent else NEGATIVE) for cell, of_cell in meant.items()
    }
    codes = np.array([codes_of[cell] for cell in cells], np.int8).reshape(len(cells), len(vocabulary))
    return RowLabels(
        vocabulary,
        codes,
        pd.Series(None, index=cells.index, dtype=object),
        _list_unread(cells, parsed, names),
    )


def _encode(findings: Sequence[str | None], vocabulary: Sequence[str], other: int) -> list[int]:
    return [POSITIVE if finding in findings else other for finding in vocabulary]


def _split_cell(cell: str, separator: str | None) -> list[str]:
    """Return the names in a cell, such as `A|B` or `['a', 'b']`."""
    parts = cell.split(separator) if separator else [cell]
    return [name for part in parts if (name := part.strip(QUOTES)) and name.lower() not in ("nan", "null")]


def _find_finding(name: str, names: Mapping[str, str | None]) -> str | None:
    """Return the finding that a name means, None for none."""
    meant = names.get(_fold(name), names.get(OTHERS)) if names else name
    finding = name_finding(meant) if meant else NO_FINDING
    return None if finding == NO_FINDING else finding


def _list_unread(
    cells: pd.Series, parsed: Mapping[str, Sequence[str]], names: Mapping[str, str | None]
) -> tuple[Guess, ...]:
    """Say which names in the column are read as nothing because the user did not give them."""
    if not names or OTHERS in names:
        return ()
    counts: Counter[str] = Counter()
    for cell, count in cells.value_counts().items():
        for name in parsed[str(cell)]:
            if _fold(name) not in names and canonicalise(name) != NO_FINDING:
                counts[name] += int(count)
    if not counts:
        return ()
    most = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(6))
    more = f" and {len(counts) - 6:,} more" if len(counts) > 6 else ""
    return (Guess(f"labels that are no finding: {most}{more}", "source.labels.names"),)


def _fold(name: str) -> str:
    return " ".join(name.lower().split())


def name_finding(name: str) -> str:
    """Return the canonical spelling of a finding, without characters that no column or address should have."""
    return canonicalise(" ".join(re.sub(r"[^\w -]+", " ", name).split()))
