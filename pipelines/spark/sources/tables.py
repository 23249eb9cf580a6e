"""What the sources share: label tables read line by line, so that every row can be accounted for."""

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.errors import UserError
from chestai.labels.demographics import read_years
from chestai.labels.findings import parse_findings, targets
from pipelines.data.files import InputFolder
from pipelines.spark.arrow_io import read_lines
from pipelines.spark.python_workers import without_zip_rescan

# line: from 1. text: the row as it stands. key: what names the image file, as `key` of the listing does.
# study_id to view: null where the row does not say; impossible_age: it gives an age that cannot be (age_years is null
# then). targets: 1, 0, or null = not known, in the source's vocabulary. uncertain: the findings whose label the source
# calls uncertain, whatever their target is. listed: the official split, train_val or test; null in no list. reason,
# detail: why the row is refused; null in a good one.
ENTRY = (
    "line int, text string, key string, image_id string, patient_id string, study_id string, age_years float, "
    "impossible_age boolean, sex string, view string, findings array<string>, targets array<float>, "
    "uncertain array<string>, listed string, reason string, detail string"
)

# x, y, w, h: pixels of the image file, from its top left corner. The rest as in `ENTRY`.
BOX = (
    "line int, text string, image_id string, finding string, x float, y float, w float, h float, "
    "reason string, detail string"
)

EXTENSION = r"\.[^./]*$"


def folder_of(root: str | None, example: str, hint: str = "") -> InputFolder:
    """The folder that `source.root` names.

    Raises:
        UserError: it is not set, or there is no such folder; the message ends with the hint.
    """
    if root is None:
        raise UserError(f"source.root is not set: name the folder, source.root={example}{hint}")
    return InputFolder.at(root, hint)


def first_line(folder: InputFolder, table: str) -> str:
    """The first line of a table, without a byte order mark and its end."""
    return folder.read(table).decode("utf-8-sig", errors="replace").split("\n", 1)[0].rstrip()


def wrong_header(folder: InputFolder, table: str, first: str, expected: str) -> UserError:
    """What to say of a table that begins otherwise than it should."""
    return UserError(f"{folder.location(table)} line 1 is {first[:60]!r}, not the header of {expected}")


def read_rows(spark: SparkSession, location: str | None, fields: Sequence[str]) -> DataFrame:
    """A CSV table's rows below its header: line, text, its fields as strings, malformed (null in a good row).

    Without a location there are no rows. Fields are named by their place, whatever the header calls them.
    """
    lines = read_lines(spark, [location] if location else []).where("line > 1")
    columns = ", ".join(f"`{field}` string" for field in [*fields, "malformed"])
    csv = F.from_csv("text", columns, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "malformed"})
    return lines.select("line", "text", csv.alias("row")).select("line", "text", "row.*")


def years(column: str) -> Column:
    """`chestai.labels.demographics.read_years`, once for each age that occurs."""

    def read(texts: pd.Series) -> pd.Series:
        return texts.map({text: read_years(text) for text in texts.dropna().unique()}).astype("float32")

    return F.pandas_udf(without_zip_rescan(read), "float")(column)  # type: ignore[call-overload]


def impossible(column: str, age: Column) -> Column:
    """Whether a text that should be an age is none."""
    return F.coalesce(F.trim(column) != "", F.lit(False)) & age.isNull()


def read_label(label: str | None, vocabulary: Sequence[str]) -> tuple[list[str] | None, list[float] | None, str | None]:
    """Findings and targets of a pipe-separated label, or the problem with it."""
    try:
        findings = parse_findings(label or "", vocabulary)
    except ValueError as error:
        return None, None, str(error)
    return findings, targets(findings, vocabulary), None


def labels(column: str, vocabulary: Sequence[str]) -> Column:
    """`read_label`, once for each label that occurs, of which NIH's 112,120 rows have 836: a struct of its results."""

    def read(texts: pd.Series) -> pd.DataFrame:
        texts = texts.astype(object).where(texts.notna(), None)
        known = {text: read_label(text, vocabulary) for text in texts.unique()}
        return pd.DataFrame([known[text] for text in texts], columns=["findings", "targets", "problem"])

    parsed = "findings array<string>, targets array<float>, problem string"
    return F.pandas_udf(without_zip_rescan(read), parsed)(column)  # type: ignore[call-overload]


def one_of(column: str, words: Sequence[str]) -> Column:
    """Whether a field is blank or one of these words."""
    return F.coalesce(F.trim(column).isin("", *words), F.lit(True))


def none_uncertain() -> Column:
    """`uncertain` of a source whose labels are all certain."""
    return F.array().cast("array<string>").alias("uncertain")


def at_line(table: str, problem: Column) -> Column:
    """A problem with its place, null where there is none."""
    return F.concat(F.lit(f"{table} line "), F.col("line"), F.lit(": "), problem)


def no_boxes(spark: SparkSession) -> DataFrame:
    """The boxes of a source that has none."""
    return spark.createDataFrame([], BOX)
