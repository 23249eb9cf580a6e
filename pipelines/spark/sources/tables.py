"""What the sources share: label tables are read line by line, so that every row can be accounted for."""

import csv
import re
from collections.abc import Collection, Sequence

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.errors import UserError
from chestai.labels.demographics import parse_age_years
from chestai.labels.findings import encode_targets, parse_findings
from chestai.lake.files import decode_text
from pipelines.data.files import LISTING, InputFolder
from pipelines.spark.arrow_io import read_lines
from pipelines.spark.python_workers import without_zip_rescan
from pipelines.spark.sources.file_names import MatchedNames

# Columns of a label row. line: from 1. text: the raw row. key: names the image file, like `key` of the listing.
# study_id to view: null if the row does not say. impossible_age: the row gives an age that cannot be; age_years is then
# null. targets: 1, 0, or null = not known, in the source's vocabulary. uncertain: findings that the source labels
# uncertain, whatever their target is. listed: the official split, train_val or test; null if no list has the image.
# reason, detail: why the row is rejected; null in a good row.
ENTRY_COLUMNS = (
    "line int, text string, key string, image_id string, patient_id string, study_id string, age_years float, "
    "impossible_age boolean, sex string, view string, findings array<string>, targets array<float>, "
    "uncertain array<string>, listed string, reason string, detail string"
)

# Columns of a bounding box. x, y, w, h: pixels from the top left corner, of the image file or, if `drawn_on` is not
# null, of a square copy with sides of so many pixels. The rest as above.
BOX_COLUMNS = (
    "line int, text string, image_id string, finding string, x float, y float, w float, h float, drawn_on int, "
    "reason string, detail string"
)

EXTENSION = r"\.[^./]*$"


def open_root(root: str | None, example: str, hint: str = "") -> InputFolder:
    """Open the folder at `source.root`.

    Raises:
        UserError: The key is not set, or there is no such folder; the message ends with the hint.
    """
    if root is None:
        raise UserError(f"source.root is not set: name the folder, source.root={example}{hint}")
    return InputFolder.open(root, hint)


def compile_pattern(text: str, where: str) -> re.Pattern[str]:
    """Compile a regular expression that a setting gives, whose group 1 is the part that is meant.

    Args:
        where: The setting, for errors.

    Raises:
        UserError: It is not a regular expression, or has no group.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"{where} is not a regular expression: {error}") from error
    if not pattern.groups:
        raise UserError(f"{where} has no group: put the part that is meant in parentheses")
    return pattern


def read_first_line(folder: InputFolder, table: str) -> str:
    """Return the first line of a table, without byte order mark and line end."""
    return decode_text(folder.read(table)).split("\n", 1)[0].rstrip()


def header_error(folder: InputFolder, table: str, first: str, expected: str) -> UserError:
    """Return the error for a table whose first line is not the expected header."""
    return UserError(f"{folder.location(table)} line 1 is {first[:60]!r}, not the header of {expected}")


def read_column(folder: InputFolder, table: str, column: int) -> set[str]:
    """Return the values of a column of a CSV table below its header."""
    rows = csv.reader(decode_text(folder.read(table)).splitlines()[1:])
    return {row[column].strip() for row in rows if len(row) > column and row[column].strip()}


def with_keys(images: pa.Table, keys: Sequence[str | None]) -> pa.Table:
    """Return a `pipelines.data.files.LISTING` with other keys."""
    return images.set_column(LISTING.get_field_index("key"), "key", pa.array(keys, pa.string()))


def check_matches(matched: MatchedNames, named: Collection[str], folder: InputFolder, table: str) -> None:
    """Check that a label table names one image file at least.

    Raises:
        UserError: It names none; the message has the nearest names.
    """
    mismatch = matched.explain_mismatch(named, folder.location(table))
    if mismatch:
        raise UserError(f"{mismatch}: make the names agree")


def read_csv_rows(spark: SparkSession, location: str | None, fields: Sequence[str], delimiter: str = ",") -> DataFrame:
    """Return the rows of a CSV table below its header; no rows if the location is None.

    Columns: line, text, the fields as strings, malformed (null in a good row). Fields are named by their position,
    whatever the header calls them.
    """
    lines = read_lines(spark, [location] if location else []).where("line > 1")
    columns = ", ".join(f"`{field}` string" for field in [*fields, "malformed"])
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "malformed", "sep": delimiter}
    row = F.from_csv("text", columns, options)
    return lines.select("line", "text", row.alias("row")).select("line", "text", "row.*")


def parse_ages(column: str) -> Column:
    """Parse ages into years, each distinct text once; null if there is none or it cannot be an age."""

    def parse(texts: pd.Series) -> pd.Series:
        return texts.map({text: parse_age_years(text) for text in texts.dropna().unique()}).astype("float32")

    return F.pandas_udf(without_zip_rescan(parse), "float")(column)  # type: ignore[call-overload]


def is_impossible_age(column: str, age: Column) -> Column:
    """Whether a text that should be an age could not be parsed as one."""
    return F.coalesce(F.trim(column) != "", F.lit(False)) & age.isNull()


def parse_label(
    label: str | None, vocabulary: Sequence[str]
) -> tuple[list[str] | None, list[float] | None, str | None]:
    """Return findings and targets of a pipe-separated label, and what is wrong with it (None if nothing)."""
    try:
        findings = parse_findings(label or "", vocabulary)
    except ValueError as error:
        return None, None, str(error)
    return findings, encode_targets(findings, vocabulary), None


def parse_labels(column: str, vocabulary: Sequence[str]) -> Column:
    """Apply `parse_label` to a column: a struct of findings, targets, problem.

    Each distinct label is parsed once: NIH's 112,120 rows have 836.
    """

    def parse(texts: pd.Series) -> pd.DataFrame:
        texts = texts.astype(object).where(texts.notna(), None)
        parsed = {text: parse_label(text, vocabulary) for text in texts.unique()}
        return pd.DataFrame([parsed[text] for text in texts], columns=["findings", "targets", "problem"])

    columns = "findings array<string>, targets array<float>, problem string"
    return F.pandas_udf(without_zip_rescan(parse), columns)(column)  # type: ignore[call-overload]


def is_blank_or_in(column: str, words: Sequence[str]) -> Column:
    """Whether a field is blank or one of these words."""
    return F.coalesce(F.trim(column).isin("", *words), F.lit(True))


def no_uncertain_findings() -> Column:
    """Return the `uncertain` column of a source whose labels are all certain."""
    return F.array().cast("array<string>").alias("uncertain")


def locate_problem(table: str, problem: Column) -> Column:
    """Put table and line before a problem; null if there is no problem."""
    return F.concat(F.lit(f"{table} line "), F.col("line"), F.lit(": "), problem)


class WithoutBoxes:
    """A source that has no bounding boxes."""

    def read_boxes(self, spark: SparkSession) -> DataFrame:
        """Return no rows, as `BOX_COLUMNS`."""
        return spark.createDataFrame([], BOX_COLUMNS)
