"""NIH ChestX-ray14 as published: the label table in its two forms, the split lists, the box list.

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
    at_line,
    first_line,
    folder_of,
    impossible,
    labels,
    none_uncertain,
    one_of,
    read_rows,
    wrong_header,
    years,
)
from pipelines.spark.splits import TEST, TRAIN_VAL

# The label table by name, the first there is: NIH's own, its re-issue, the 5,606-row sample that Kaggle hosts.
ENTRY_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017*.csv", "sample_labels.csv")
LISTS = {TRAIN_VAL: "train_val_list.txt", TEST: "test_list.txt"}
BOX_TABLE = "BBox_List_2017.csv"

# The forms of the table by their headers; the rows of all have 11 fields. 2017's header has one comma more than
# 2020's, so that it names 12 (names with a comma inside are not quoted). The box list's header names 9 fields over 6.
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


@dataclass(frozen=True)
class Nih:
    """A folder in the form of ChestX-ray14, found by `find`; images lie anywhere below it."""

    folder: InputFolder
    tables: tuple[str, ...]
    note: str
    keeps_missing: bool
    vocabulary: tuple[str, ...] = NIH14

    @staticmethod
    def find(source: schema.Nih) -> "Nih":
        """Look at the folder and at the headers of its tables.

        Raises:
            UserError: there is no such folder, no label table, or a table or split list of another form.
        """
        hint = ": make the synthetic corpus first, python -m pipelines.phantom" if source.synthetic else ""
        folder = folder_of(source.root, "/data/nih", hint)
        present = folder.files()
        named = [name for form in ENTRY_TABLES for name in present if fnmatch(name, form)]
        entry_tables = list(dict.fromkeys(named))
        if not entry_tables:
            wanted = " or ".join(ENTRY_TABLES[1:])
            raise UserError(f"source.root={source.root} holds no label table {wanted}{hint}")
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
    def has_lists(self) -> bool:
        return LISTS[TEST] in self.tables

    def listing(self) -> pa.Table:
        """Images by their file name, wherever they lie."""
        return self.folder.images()

    def entries(self, spark: SparkSession) -> DataFrame:
        """The label table, as `pipelines.spark.sources.tables.ENTRY`."""
        number, follow_up = (F.regexp_extract("file", FILE, group) for group in (1, 2))
        patient = F.col("patient").cast("long")
        patient_id = F.lpad(number.cast("long").cast("string"), 8, "0")
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(ENTRY_FIELDS)} fields")
            .when(_is_no_file("file"), "the first field is no image file's name")
            .when(~patient.eqNullSafe(number.cast("long")), "patient and file name differ")
            .when(~one_of("sex", ("M", "F")), "sex is neither M nor F")
            .when(~one_of("view", ("PA", "AP")), "view is neither PA nor AP")
        )
        reason = F.when(malformed.isNotNull(), "entry_unparsable").when(
            F.col("parsed.problem").isNotNull(), "unknown_finding"
        )
        rows = read_rows(spark, self.folder.location(self.tables[0]), ENTRY_FIELDS)
        rows = rows.withColumns({"age_years": years("age"), "parsed": labels("label", self.vocabulary)})
        return rows.join(self._listed(spark), "file", "left").select(
            "line",
            "text",
            F.col("file").alias("key"),
            F.regexp_replace("file", EXTENSION, "").alias("image_id"),
            patient_id.alias("patient_id"),
            F.concat_ws("_", patient_id, follow_up).alias("study_id"),
            "age_years",
            impossible("age", F.col("age_years")).alias("impossible_age"),
            "sex",
            "view",
            "parsed.findings",
            "parsed.targets",
            none_uncertain(),
            "listed",
            reason.alias("reason"),
            at_line(self.tables[0], F.coalesce(malformed, "parsed.problem")).alias("detail"),
        )

    def boxes(self, spark: SparkSession) -> DataFrame:
        """The box list, as `pipelines.spark.sources.tables.BOX`, empty where there is none."""
        is_box = (F.col("x") >= 0) & (F.col("y") >= 0) & (F.col("w") > 0) & (F.col("h") > 0)
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(BOX_FIELDS)} fields")
            .when(_is_no_file("file"), "the first field is no image file's name")
            .when(~F.coalesce(is_box, F.lit(False)), "x, y, w, h are no box")
        )
        unknown = F.coalesce("parsed.problem", F.when(F.size("parsed.findings") != 1, "not one finding"))
        reason = F.when(malformed.isNotNull(), "box_unparsable").when(unknown.isNotNull(), "unknown_finding")
        location = self.folder.location(BOX_TABLE) if BOX_TABLE in self.tables else None
        rows = read_rows(spark, location, BOX_FIELDS).withColumn("parsed", labels("label", self.vocabulary))
        return rows.withColumns({side: F.col(side).cast("float") for side in "xywh"}).select(
            "line",
            "text",
            F.regexp_replace("file", EXTENSION, "").alias("image_id"),
            F.col("parsed.findings")[0].alias("finding"),
            *"xywh",
            reason.alias("reason"),
            at_line(BOX_TABLE, F.coalesce(malformed, unknown)).alias("detail"),
        )

    def _listed(self, spark: SparkSession) -> DataFrame:
        """The official split: file, listed."""
        lists = [self.folder.location(name) for name in LISTS.values() if name in self.tables]
        listed = F.when(F.col("location").endswith(LISTS[TEST]), TEST).otherwise(TRAIN_VAL)
        lines = read_lines(spark, lists).select(F.trim("text").alias("file"), listed.alias("listed"))
        return lines.dropDuplicates(["file"])


def check_entries(folder: InputFolder, table: str) -> str:
    """Check how the label table begins and say which form it has: 2017, 2020 or sample.

    Raises:
        UserError: the file, what its first line is and what to do.
    """
    first = first_line(folder, table)
    if first not in FORMS:
        raise wrong_header(folder, table, first, "NIH's table: download it again")
    return FORMS[first]


def check_boxes(folder: InputFolder) -> None:
    """Check how the box list begins. Raises `UserError` like `check_entries`."""
    first = first_line(folder, BOX_TABLE)
    if first.rstrip(",") != BOX_HEADER:
        raise wrong_header(folder, BOX_TABLE, first, "NIH's box list: download it again")


def check_lists(folder: InputFolder, names: Sequence[str]) -> None:
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


def _is_no_file(column: str) -> Column:
    return ~F.coalesce(F.col(column).rlike(FILE), F.lit(False))
