"""NIH ChestX-ray14 as published: the label table in its two forms, the split lists, the box list.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai import config as conf
from chestai.errors import UserError
from chestai.findings import NIH14, parse_findings, targets
from pipelines.folder import Folder
from pipelines.frames import read_lines
from pipelines.splits import TEST, TRAIN_VAL

ENTRY_TABLE, ENTRY_TABLES = "Data_Entry_2017.csv", "Data_Entry_2017*.csv"
LISTS = {TRAIN_VAL: "train_val_list.txt", TEST: "test_list.txt"}
BOX_TABLE = "BBox_List_2017.csv"

# 2017's header has one comma more than 2020's, so that it names 12 fields; the rows of both have 11 (names
# with a comma inside are not quoted). The box list's header likewise names 9 fields over 6.
ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ENTRY_FIELDS = [
    "file",
    "label",
    "follow_up",
    "patient",
    "age",
    "sex",
    "view",
    "width",
    "height",
    "spacing_x",
    "spacing_y",
]
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h]"
BOX_FIELDS = ["file", "label", "x", "y", "w", "h"]

# Patient and follow-up. The column `Follow-up #` is no key: 2020's differs from the file name in 24,106 rows.
FILE = r"(?i)^(\d{1,8})_(\d{3})\.(?:png|jpe?g)$"
EXTENSION = r"\.[^.]*$"

OLDEST_YEARS = 120.0
UNITS_A_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "D": 365.25}


@dataclass(frozen=True)
class Nih:
    """A folder in the form of ChestX-ray14, found by `find`; images lie anywhere below it."""

    folder: Folder
    tables: tuple[str, ...]
    note: str
    vocabulary: tuple[str, ...] = NIH14

    @staticmethod
    def find(source: conf.Source) -> "Nih":
        """Look at the folder and at the headers of its tables.

        Raises:
            UserError: there is no such folder, no label table, or a table or split list of another form.
        """
        hint = ": make the synthetic corpus first, python -m pipelines.phantom" if source.synthetic else ""
        if source.root is None:
            raise UserError(f"source.root is not set: name the folder, source.root=/data/nih{hint}")
        folder = Folder.at(source.root, hint)
        present = folder.files()
        entry_tables = [name for name in present if fnmatch(name, ENTRY_TABLES)]
        if not entry_tables:
            raise UserError(f"source.root={source.root} holds no label table {ENTRY_TABLES}{hint}")
        entry_tables.sort(key=lambda name: (name != ENTRY_TABLE, name))
        lists = [name for name in LISTS.values() if name in present]
        check_lists(folder, lists)
        form = check_header(folder, entry_tables[0], ENTRY_HEADER)
        boxes = [BOX_TABLE] if BOX_TABLE in present else []
        if boxes:
            check_header(folder, BOX_TABLE, BOX_HEADER)
        unread = f"; not read: {', '.join(entry_tables[1:])}" if entry_tables[1:] else ""
        return Nih(folder, (entry_tables[0], *lists, *boxes), f"{entry_tables[0]} ({form} form){unread}")

    @property
    def has_lists(self) -> bool:
        return LISTS[TEST] in self.tables

    def entries(self, spark: SparkSession) -> DataFrame:
        """The label table, as `pipelines.sources.Source` describes it."""
        number, follow_up = (F.regexp_extract("file", FILE, group) for group in (1, 2))
        patient = F.col("patient").cast("long")
        patient_id = F.lpad(number.cast("long").cast("string"), 8, "0")
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(ENTRY_FIELDS)} fields")
            .when(_is_no_file("file"), "the first field is no image file's name")
            .when(~patient.eqNullSafe(number.cast("long")), "patient and file name differ")
            .when(~F.coalesce("sex", F.lit("M")).isin("M", "F"), "sex is neither M nor F")
            .when(~F.coalesce("view", F.lit("PA")).isin("PA", "AP"), "view is neither PA nor AP")
        )
        reason = F.when(malformed.isNotNull(), "entry_unparsable").when(
            F.col("parsed.problem").isNotNull(), "unknown_finding"
        )
        rows = self._rows(spark, self.tables[0], ENTRY_FIELDS).withColumn("age_years", _years("age"))
        return rows.join(self._listed(spark), "file", "left").select(
            "line",
            "text",
            "file",
            F.regexp_replace("file", EXTENSION, "").alias("image_id"),
            patient_id.alias("patient_id"),
            F.concat_ws("_", patient_id, follow_up).alias("study_id"),
            "age_years",
            (F.col("age").isNotNull() & F.col("age_years").isNull()).alias("impossible_age"),
            "sex",
            "view",
            "parsed.findings",
            "parsed.targets",
            "listed",
            reason.alias("reason"),
            _where(self.tables[0], F.coalesce(malformed, "parsed.problem")).alias("detail"),
        )

    def boxes(self, spark: SparkSession) -> DataFrame:
        """The box list, as `pipelines.sources.Source` describes it, empty where there is none."""
        is_box = (F.col("x") >= 0) & (F.col("y") >= 0) & (F.col("w") > 0) & (F.col("h") > 0)
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(BOX_FIELDS)} fields")
            .when(_is_no_file("file"), "the first field is no image file's name")
            .when(~F.coalesce(is_box, F.lit(False)), "x, y, w, h are no box")
        )
        unknown = F.coalesce("parsed.problem", F.when(F.size("parsed.findings") != 1, "not one finding"))
        reason = F.when(malformed.isNotNull(), "box_unparsable").when(unknown.isNotNull(), "unknown_finding")
        rows = self._rows(spark, BOX_TABLE, BOX_FIELDS)
        return rows.withColumns({side: F.col(side).cast("float") for side in "xywh"}).select(
            "line",
            "text",
            F.regexp_replace("file", EXTENSION, "").alias("image_id"),
            F.col("parsed.findings")[0].alias("finding"),
            *"xywh",
            reason.alias("reason"),
            _where(BOX_TABLE, F.coalesce(malformed, unknown)).alias("detail"),
        )

    def _rows(self, spark: SparkSession, table: str, fields: Sequence[str]) -> DataFrame:
        """A table's rows: line, text, its fields as strings, malformed (null in a good row), parsed (label).

        A source without the table has no rows.
        """
        lines = read_lines(spark, [self.folder.location(table)] if table in self.tables else []).where("line > 1")
        columns = ", ".join(f"{field} string" for field in [*fields, "malformed"])
        csv = F.from_csv("text", columns, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "malformed"})
        rows = lines.select("line", "text", csv.alias("row"))
        return rows.select("line", "text", "row.*", _labels("row.label").alias("parsed"))

    def _listed(self, spark: SparkSession) -> DataFrame:
        """The official split: file, listed."""
        lists = [self.folder.location(name) for name in LISTS.values() if name in self.tables]
        listed = F.when(F.col("location").endswith(LISTS[TEST]), TEST).otherwise(TRAIN_VAL)
        lines = read_lines(spark, lists).select(F.trim("text").alias("file"), listed.alias("listed"))
        return lines.dropDuplicates(["file"])


def check_header(folder: Folder, table: str, expected: str) -> str:
    """Check that a table begins as it should and say which form it has, 2017 (with surplus commas) or 2020.

    Raises:
        UserError: the file, what its first line is and what to do.
    """
    first = folder.read(table).decode("utf-8-sig", errors="replace").split("\n", 1)[0].rstrip()
    if first.rstrip(",") != expected:
        where = folder.location(table)
        raise UserError(f"{where} line 1 is {first[:60]!r}, not the header of NIH's table: download it again")
    return "2017" if first.endswith(",") else "2020"


def check_lists(folder: Folder, names: Sequence[str]) -> None:
    """Check the two split lists.

    Raises:
        UserError: one of them is missing, or an image is in both.
    """
    if len(names) == 1:
        raise UserError(f"{folder.location(names[0])} is alone: add the other split list or remove this one")
    lists = [set(folder.read(name).split()) for name in names]
    twice = set.intersection(*lists) if lists else set()
    if twice:
        raise UserError(f"{min(twice).decode()} is in both {' and '.join(names)} of {folder.uri}: remove it from one")


def read_years(text: str) -> float | None:
    """An age as a table writes it, `058Y`, `013M`, `001D` or `58`, in years; None for what no age can be."""
    match = re.fullmatch(r"(\d+)([YMD]?)", text)
    if match is None:
        return None
    years = int(match[1]) / UNITS_A_YEAR[match[2]]
    return years if years <= OLDEST_YEARS else None


def read_label(label: str | None) -> tuple[list[str] | None, list[float] | None, str | None]:
    """Findings and targets of a label, or the problem with it."""
    try:
        findings = parse_findings(label or "")
    except ValueError as error:
        return None, None, str(error)
    return findings, targets(findings), None


def _years(column: str) -> Column:
    """`read_years`, once for each age that occurs."""

    def years(texts: pd.Series) -> pd.Series:
        return texts.map({text: read_years(text) for text in texts.dropna().unique()}).astype("float32")

    return F.pandas_udf(years, "float")(column)  # type: ignore[call-overload]


def _labels(column: str) -> Column:
    """`read_label`, once for each label that occurs, of which 112,120 rows have 836."""

    def labels(texts: pd.Series) -> pd.DataFrame:
        texts = texts.astype(object).where(texts.notna(), None)
        known = {text: read_label(text) for text in texts.unique()}
        return pd.DataFrame([known[text] for text in texts], columns=["findings", "targets", "problem"])

    parsed = "findings array<string>, targets array<float>, problem string"
    return F.pandas_udf(labels, parsed)(column)  # type: ignore[call-overload]


def _is_no_file(column: str) -> Column:
    return ~F.coalesce(F.col(column).rlike(FILE), F.lit(False))


def _where(table: str, problem: Column) -> Column:
    """A problem with its place, null where there is none."""
    return F.concat(F.lit(f"{table} line "), F.col("line"), F.lit(": "), problem)
