"""The rows of a label table become label rows of the ETL: one per image, and one per row that is rejected."""

import numpy as np
import pandas as pd
import pyarrow as pa

from chestai.config import schema
from chestai.errors import UserError
from pipelines.spark.sources.file_names import strip_suffix
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_table.cells import NOT_FRONTAL, count_years, parse_ages, parse_cells, tell
from pipelines.spark.sources.label_table.columns import Rows, list_columns
from pipelines.spark.sources.label_table.labels import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN, RowLabels
from pipelines.spark.sources.label_table.reader import LINE, PROBLEM, TABLE
from pipelines.spark.sources.label_table.readers import merge_rows

CODES = {POSITIVE: "1", NEGATIVE: "0", UNCERTAIN: "u", UNKNOWN: "?"}

# As `pipelines.spark.sources.tables.ENTRY_COLUMNS`, with a character of `CODES` for each finding.
ENTRIES = pa.schema(
    {
        "line": pa.int32(),
        "text": pa.string(),
        "key": pa.string(),
        "image_id": pa.string(),
        "patient_id": pa.string(),
        "study_id": pa.string(),
        "age_years": pa.float32(),
        "impossible_age": pa.bool_(),
        "sex": pa.string(),
        "view": pa.string(),
        "codes": pa.string(),
        "listed": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


def make_entries(rows: Rows, labels: RowLabels, source: schema.Table) -> tuple[pd.DataFrame, tuple[Guess, ...]]:
    """Return the columns of `ENTRIES` for each row of the table, and what was guessed.

    Raises:
        UserError: A column is not there, or its cells mean nothing.
    """
    columns, frame = source.columns, rows.frame
    if columns.image is None:
        raise UserError(
            f"source.columns.image is not set: name the column that names the image files; {rows.where} has "
            f"{', '.join(list_columns(frame)[:40])}"
        )
    prefix = f"{source.name}:" if source.namespace is None else source.namespace
    image = (
        rows.find(columns.image, "source.columns.image").str.replace("\\", "/").str.replace(r"^(\.?/)+", "", regex=True)
    )
    image_id = prefix + image.map(strip_suffix).str.replace("/", ":")
    meant, problems = _read_people(rows, source)
    ages, impossible = _read_ages(rows, source)
    entries = pd.DataFrame(
        {
            "line": frame[LINE],
            "text": frame[TABLE] + " line " + frame[LINE].astype(str),
            "key": image.where(image != "", None),
            "image_id": image_id,
            "patient_id": _name(rows, columns.patient, "patient", prefix),
            "study_id": _name(rows, columns.study, "study", prefix),
            "age_years": ages,
            "impossible_age": impossible,
            **meant,
            "codes": [encode(codes) for codes in labels.codes],
        }
    )
    blank = tell(image == "", "the column of the image is blank")
    problem = frame[PROBLEM].astype(object)
    for other in (blank, *problems, labels.problems):
        problem = problem.where(problem.notnull(), other)
    excluded = _find_excluded(rows, source)
    other_view = entries["view"] == NOT_FRONTAL
    reason = np.select(
        [problem.notnull(), excluded.notnull(), other_view], ["entry_unparsable", "excluded", NOT_FRONTAL], ""
    )
    shown = problem.where(problem.notnull(), excluded.where(excluded.notnull(), "its view is not frontal"))
    entries["reason"] = pd.Series(reason, index=frame.index).replace("", None)
    entries["detail"] = (entries["text"] + ": " + shown.astype(str)).where(entries["reason"].notnull(), None)
    own = Guess(
        "each image that is no DICOM file its own patient: the split cannot keep patients apart",
        "source.columns.patient",
    )
    return entries, () if columns.patient else (own,)


def merge_entries(entries: pd.DataFrame, codes: np.ndarray, readers: pd.Series | None, agree: int) -> pd.DataFrame:
    """Merge the good rows of each image into one, with the labels of `merge_rows`.

    Other columns take the first cell that says something. Rows that name different patients or splits are rejected.
    """
    good = entries["reason"].isnull()
    rows = entries[good]
    numbers, merged = merge_rows(rows["key"], codes[good], None if readers is None else readers[good], agree)
    groups = rows.groupby(numbers, sort=True)
    images = groups.first()
    images["codes"] = [encode(row) for row in merged]
    unclear = (groups["patient_id"].nunique() > 1) | (groups["listed"].nunique() > 1)
    images.loc[unclear, "reason"] = "entry_unparsable"
    images.loc[unclear, "detail"] = images["text"] + ": rows of this image name several patients or splits"
    return pd.concat([images, entries[~good]], ignore_index=True)


def encode(codes: np.ndarray) -> str:
    """Return a row of codes as text, a character a finding."""
    return "".join(CODES[code] for code in codes.tolist())


def _name(rows: Rows, setting: str | None, what: str, prefix: str) -> pd.Series:
    """Return the IDs of patients or studies; None where there are none."""
    if setting is None:
        return pd.Series(None, index=rows.frame.index, dtype=object)
    cells = rows.find(setting, f"source.columns.{what}").str.replace(r"^(\d+)\.0$", r"\1", regex=True)
    return (prefix + cells).where(cells != "", None)


def _read_people(rows: Rows, source: schema.Table) -> tuple[dict[str, pd.Series], list[pd.Series]]:
    """Return view, sex and split of each row, and what is wrong with them."""
    nothing = pd.Series(None, index=rows.frame.index, dtype=object)
    meant, problems = {}, []
    for kind, name in (("view", "view"), ("sex", "sex"), ("split", "listed")):
        setting = getattr(source.columns, kind)
        meant[name] = nothing
        if setting is not None:
            cells = rows.find(setting, f"source.columns.{kind}")
            meant[name], unknown = parse_cells(
                cells, kind, getattr(source.words, kind), f"source.columns.{kind}={setting}"
            )
            problems.append(tell(unknown, f"the column {setting} holds no {kind}"))
    return meant, problems


def _read_ages(rows: Rows, source: schema.Table) -> tuple[pd.Series, pd.Series]:
    columns = source.columns
    if columns.age is not None:
        return parse_ages(rows.find(columns.age, "source.columns.age"), f"source.columns.age={columns.age}")
    if columns.born is not None and columns.date is not None:
        born, date = (rows.find(name, "source.columns.born and date") for name in (columns.born, columns.date))
        return parse_ages(count_years(born, date), "source.columns.born")
    index = rows.frame.index
    return pd.Series(np.nan, index=index, dtype="float32"), pd.Series(False, index=index)


def _find_excluded(rows: Rows, source: schema.Table) -> pd.Series:
    """Return why the user leaves a row out, None if not."""
    why = pd.Series(None, index=rows.frame.index, dtype=object)
    for column, cells in source.exclude.items():
        found = rows.find(column, "source.exclude")
        named = found.str.lower().isin([cell.strip().lower() for cell in cells])
        why = why.where(~(named & why.isnull()), f"source.exclude: {column} is " + found)
    return why
