"""The source NIH ChestX-ray14, as published: label table (two forms and a sample), split lists, box list.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import NIH14
from pipelines.data.files import InputFolder
from pipelines.spark.arrow_io import read_lines
from pipelines.spark.sources.tables import (
    EXTENSION,
    header_error,
    is_blank_or_in,
    is_impossible_age,
    locate_problem,
    no_uncertain_findings,
    open_root,
    parse_ages,
    parse_labels,
    read_csv_rows,
    read_first_line,
)
from pipelines.spark.splits import TEST, TRAIN_VAL

# Names of the label table, the first match wins: NIH's own, its re-issue, the 5,606-row sample that Kaggle hosts.
ENTRY_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017*.csv", "sample_labels.csv")
LISTS = {TRAIN_VAL: "train_val_list.txt", TEST: "test_list.txt"}
BOX_TABLE = "BBox_List_2017.csv"

# The table's forms by their headers; rows of all forms have 11 fields. Header names with a comma inside are not quoted.
# The header of 2017 has one comma more than that of 2020. The box list's header names 9 fields over rows of 6.
ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
SAMPLE_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)
FORMS = {ENTRY_HEADER + ",": "2017", ENTRY_HEADER: "2020", SAMPLE_HEADER: "sample"}
ENTRY_FIELDS = [
    *("file", "label", "follow_up", "patient", "age", "sex", "view"),
    *("width", "height", "spacing_x", "spacing_y"),
]
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h]"
BOX_FIELDS = ["file", "label", "x", "y", "w", "h"]

# Patient and follow-up number. The column `Follow-up #` is no key: in 2020 it differs from the name in 24,106 rows.
IMAGE_NAME = r"(?i)^(\d{1,8})_(\d{3})\.(?:png|jpe?g)$"


@dataclass(frozen=True)
class Nih:
    """A folder in the form of ChestX-ray14, opened by `find`; images lie anywhere below it."""

    folder: InputFolder
    tables: tuple[str, ...]
    note: str
    keeps_missing: bool
    vocabulary: tuple[str, ...] = NIH14

    @staticmethod
    def find(source: schema.Nih) -> "Nih":
        """Open the folder and check the headers of its tables.

        Raises:
            UserError: No such folder, no label table, or a malformed table or split list.
        """
        hint = ": make the synthetic corpus first, python -m pipelines.phantom" if source.synthetic else ""
        folder = open_root(source.root, "/data/nih", hint)
        present = folder.list_files()
        matches = [name for pattern in ENTRY_TABLES for name in present if fnmatch(name, pattern)]
        entry_tables = list(dict.fromkeys(matches))
        if not entry_tables:
            names = " or ".join(ENTRY_TABLES[1:])
            raise UserError(f"source.root={source.root} holds no label table {names}{hint}")
        lists = [name for name in LISTS.values() if name in present]
        check_lists(folder, lists)
        form = check_entries(folder, entry_tables[0])
        boxes = [BOX_TABLE] if BOX_TABLE in present else []
        if boxes:
            check_boxes(folder)
        unread = f"; not read: {', '.join(entry_tables[1:])}" if entry_tables[1:] else ""
        note = f"{entry_tables[0]} ({form} form){unread}"
        return Nih(folder, (entry_tables[0], *lists, *boxes), note, source.images == "optional")

    @property
    def has_official_split(self) -> bool:
        return LISTS[TEST] in self.tables

    def list_images(self) -> pa.Table:
        """List the images; their key is their file name."""
        return self.folder.list_images()

    def read_entries(self, spark: SparkSession) -> DataFrame:
        """Read the label table as `pipelines.spark.sources.tables.ENTRY_COLUMNS`."""
        number, follow_up = (F.regexp_extract("file", IMAGE_NAME, group) for group in (1, 2))
        patient = F.col("patient").cast("long")
        patient_id = F.lpad(number.cast("long").cast("string"), 8, "0")
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(ENTRY_FIELDS)} fields")
            .when(~_is_image_name("file"), "the first field is not the name of an image file")
            .when(~patient.eqNullSafe(number.cast("long")), "patient and file name differ")
            .when(~is_blank_or_in("sex", ("M", "F")), "sex is neither M nor F")
            .when(~is_blank_or_in("view", ("PA", "AP")), "view is neither PA nor AP")
        )
        reason = F.when(malformed.isNotNull(), "entry_unparsable").when(
            F.col("parsed.problem").isNotNull(), "unknown_finding"
        )
        rows = read_csv_rows(spark, self.folder.location(self.tables[0]), ENTRY_FIELDS)
        rows = rows.withColumns({"age_years": parse_ages("age"), "parsed": parse_labels("label", self.vocabulary)})
        return rows.join(self._read_lists(spark), "file", "left").select(
            "line",
            "text",
            F.col("file").alias("key"),
            F.regexp_replace("file", EXTENSION, "").alias("image_id"),
            patient_id.alias("patient_id"),
            F.concat_ws("_", patient_id, follow_up).alias("study_id"),
            "age_years",
            is_impossible_age("age", F.col("age_years")).alias("impossible_age"),
            "sex",
            "view",
            "parsed.findings",
            "parsed.targets",
            no_uncertain_findings(),
            "listed",
            reason.alias("reason"),
            locate_problem(self.tables[0], F.coalesce(malformed, "parsed.problem")).alias("detail"),
        )

    def read_boxes(self, spark: SparkSession) -> DataFrame:
        """Read the box list as `pipelines.spark.sources.tables.BOX_COLUMNS`; no rows if there is none."""
        is_box = (F.col("x") >= 0) & (F.col("y") >= 0) & (F.col("w") > 0) & (F.col("h") > 0)
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(BOX_FIELDS)} fields")
            .when(~_is_image_name("file"), "the first field is not the name of an image file")
            .when(~F.coalesce(is_box, F.lit(False)), "x, y, w, h are not a box")
        )
        unknown = F.coalesce("parsed.problem", F.when(F.size("parsed.findings") != 1, "not one finding"))
        reason = F.when(malformed.isNotNull(), "box_unparsable").when(unknown.isNotNull(), "unknown_finding")
        location = self.folder.location(BOX_TABLE) if BOX_TABLE in self.tables else None
        rows = read_csv_rows(spark, location, BOX_FIELDS).withColumn("parsed", parse_labels("label", self.vocabulary))
        return rows.withColumns({side: F.col(side).cast("float") for side in "xywh"}).select(
            "line",
            "text",
            F.regexp_replace("file", EXTENSION, "").alias("image_id"),
            F.col("parsed.findings")[0].alias("finding"),
            *"xywh",
            reason.alias("reason"),
            locate_problem(BOX_TABLE, F.coalesce(malformed, unknown)).alias("detail"),
        )

    def _read_lists(self, spark: SparkSession) -> DataFrame:
        """Read the official split: file, listed."""
        lists = [self.folder.location(name) for name in LISTS.values() if name in self.tables]
        listed = F.when(F.col("location").endswith(LISTS[TEST]), TEST).otherwise(TRAIN_VAL)
        lines = read_lines(spark, lists).select(F.trim("text").alias("file"), listed.alias("listed"))
        return lines.dropDuplicates(["file"])


def check_entries(folder: InputFolder, table: str) -> str:
    """Check the header of the label table and return its form: 2017, 2020 or sample.

    Raises:
        UserError: Another header; the message names the file and what to do.
    """
    first = read_first_line(folder, table)
    if first not in FORMS:
        raise header_error(folder, table, first, "NIH's table: download it again")
    return FORMS[first]


def check_boxes(folder: InputFolder) -> None:
    """Check the header of the box list. Raises `UserError` like `check_entries`."""
    first = read_first_line(folder, BOX_TABLE)
    if first.rstrip(",") != BOX_HEADER:
        raise header_error(folder, BOX_TABLE, first, "NIH's box list: download it again")


def check_lists(folder: InputFolder, names: Sequence[str]) -> None:
    """Check the two split lists.

    Raises:
        UserError: One of them is missing, or an image is in both.
    """
    if len(names) == 1:
        raise UserError(f"{folder.location(names[0])} is alone: add the other split list or remove this one")
    lists = [set(folder.read(name).split()) for name in names]
    overlap = set.intersection(*lists) if lists else set()
    if overlap:
        raise UserError(f"{min(overlap).decode()} is in both {' and '.join(names)} of {folder.uri}: remove it from one")


def _is_image_name(column: str) -> Column:
    return F.coalesce(F.col(column).rlike(IMAGE_NAME), F.lit(False))
