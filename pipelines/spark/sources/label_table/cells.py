"""What the cells of a label table mean: view, sex, split, age."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from chestai.errors import UserError
from chestai.imaging.dicom.view import denies_frontal
from chestai.labels.demographics import parse_age_years, parse_sex, parse_view
from pipelines.spark.sources.folder_layout import find_split
from pipelines.spark.splits import TEST, TRAIN_VAL

NOT_FRONTAL = "not_frontal"  # a view that is neither frontal nor lateral
MAX_UNKNOWN = 0.1  # of the cells that say something

# Cells that say nothing, in lower case; of a view also the word for any frontal projection.
NOTHING = frozenset(("", "nan", "none", "null", "na", "n/a", "unknown", "unspecified"))
NOTHING_OF = {"view": NOTHING | {"frontal"}, "sex": NOTHING | {"u", "o", "x", "other"}, "split": NOTHING}


def parse_view_cell(cell: str) -> str | None:
    """Parse a view into PA, AP, `lateral` or `NOT_FRONTAL`; None for other words."""
    return parse_view(cell) or (NOT_FRONTAL if denies_frontal(cell) else None)


def parse_split_cell(cell: str) -> str | None:
    """Parse a word for a split, or the name of a table of it, into `train_val` or `test`; None for other words."""
    return find_split(re.sub(r"(\.(txt|csv|gz|tsv|json|parquet))+$", "", cell.lower()))


PARSERS: Mapping[str, Callable[[str], str | None]] = {
    "view": parse_view_cell,
    "sex": parse_sex,
    "split": parse_split_cell,
}

# What a word of `source.words` stands for, where it is not that itself.
OWN_WORDS = {"train": TRAIN_VAL, "val": TRAIN_VAL, "test": TEST, "other": NOT_FRONTAL}


def tell(where: pd.Series, text: str) -> pd.Series:
    """Return a column of a text where a condition holds, and None elsewhere."""
    return pd.Series([text if holds else None for holds in where], where.index, dtype="object")


def parse_cells(cells: pd.Series, kind: str, words: Mapping[str, str], key: str) -> tuple[pd.Series, pd.Series]:
    """Parse the cells of a column, each distinct one once.

    Args:
        kind: `view`, `sex` or `split`.
        words: What cells mean that the parser does not know: `source.words.<kind>`.
        key: The setting of the column.

    Returns:
        What each cell means, None if it says nothing; and whether it holds an unknown word.

    Raises:
        UserError: More than a tenth of the cells are unknown words; the message has examples.
    """
    own = {cell.strip().lower(): OWN_WORDS.get(word, word) or None for cell, word in words.items()}
    silent = (NOTHING_OF[kind] - own.keys()) | {cell for cell, word in own.items() if word is None}
    parse = PARSERS[kind]
    meanings = {
        cell: own.get(cell.lower()) or (None if cell.lower() in silent else parse(cell)) for cell in cells.unique()
    }
    meant = cells.map(meanings).astype(object)
    says = ~cells.str.lower().isin(silent)
    unknown = says & meant.isnull()
    if unknown.sum() > MAX_UNKNOWN * says.sum():
        examples = ", ".join(map(repr, cells[unknown].value_counts().index[:4]))
        raise UserError(f"{key} holds {examples}, which is no {kind}: map such words with source.words.{kind}")
    return meant.where(meant.notnull(), None), unknown


def parse_ages(ages: pd.Series, key: str) -> tuple[pd.Series, pd.Series]:
    """Parse ages into years.

    Returns:
        Years as float32, NaN without; and whether a cell says something that cannot be an age.

    Raises:
        UserError: More than half of the cells cannot be ages.
    """
    years = ages.map({cell: parse_age_years(cell.upper()) for cell in ages.unique()}).astype("float32")
    says = ~ages.str.lower().isin(NOTHING)
    impossible = says & years.isnull()
    if impossible.sum() > says.sum() / 2:
        examples = ", ".join(map(repr, ages[impossible].unique()[:4]))
        raise UserError(f"{key} holds {examples}, which is no age in years")
    return years, impossible


def count_years(born: pd.Series, date: pd.Series) -> pd.Series:
    """Return the years between two columns of years or dates, as text; empty where one is missing."""
    first, last = (column.map(_find_year).astype("float64") for column in (born, date))
    return (last - first).map(lambda age: "" if np.isnan(age) else str(int(age)))


def _find_year(cell: str) -> float:
    match = re.search(r"(?<!\d)(1[89]\d\d|20\d\d)", cell)
    return float(match[1]) if match else np.nan
