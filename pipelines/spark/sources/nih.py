"""The source NIH ChestX-ray14, as published: label table (two forms and a sample), split lists, box list.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import NIH14
from pipelines.data.files import InputFolder
from pipelines.spark.arrow_io import from_arrow
from pipelines.spark.sources.file_names import match_names
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.split_lists import LISTS, find_lists, read_lists
from pipelines.spark.sources.tables import (
    EXTENSION,
    check_matches,
    header_error,
    is_blank_or_in,
    is_impossible_age,
    locate_problem,
    no_uncertain_findings,
    open_root,
    parse_ages,
    parse_labels,
    read_column,
    read_csv_rows,
    read_first_line,
    with_keys,
)

# Names of the label table, the first match wins: NIH's own, its re-issue, the 5,606-row sample that Kaggle hosts.
ENTRY_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017*.csv", "sample_labels.csv")
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
IMAGE_NAME = r"(?i)^(\d{1,8})_(\d{3})(?:\.(?:png|jpe?g))?$"


@dataclass(frozen=True)
class Nih:
    """A folder in the form of ChestX-ray14, opened by `find`; images lie anywhere below it.

    Attributes:
        images: `pipelines.data.files.LISTING`; the key is the name in the label table.
        listed: Image name without suffix -> official split; empty without split lists.
        box_pixels: Side of the square images that the boxes were drawn on; None: the image files.
    """

    folder: InputFolder
    images: pa.Table
    tables: tuple[str, ...]
    listed: Mapping[str, str]
    box_pixels: int | None
    note: str
    guesses: tuple[Guess, ...]
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
        lists = find_lists(folder, present)
        listed = read_lists(folder, lists)
        form = check_entries(folder, entry_tables[0])
        boxes = [BOX_TABLE] if BOX_TABLE in present else []
        if boxes:
            check_boxes(folder)
        unread = f"; not read: {', '.join(entry_tables[1:])}" if entry_tables[1:] else ""
        note = f"{entry_tables[0]} ({form} form){unread}"
        images = folder.list_images()
        named = read_column(folder, entry_tables[0], 0)
        matched = match_names(named, images["path"].to_pylist(), entry_tables[0], "the names of the files")
        check_matches(matched, named, folder, entry_tables[0])
        guesses = (*matched.guesses, *guess_split(lists), *guess_boxes(boxes, source.box_pixels))
        tables = (entry_tables[0], *(name for names in lists.values() for name in names), *boxes)
        images = with_keys(images, matched.keys)
        optional = source.images == "optional"
        return Nih(folder, images, tables, listed, source.box_pixels, note, guesses, optional)

    @property
    def has_official_split(self) -> bool:
        return bool(self.listed)

    def list_images(self) -> pa.Table:
        """List the images as `find` saw them."""
        return self.images

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
        rows = rows.withColumn("stem", F.regexp_replace("file", EXTENSION, ""))
        return rows.join(self._read_lists(spark), "stem", "left").select(
            "line",
            "text",
            F.col("file").alias("key"),
            F.col("stem").alias("image_id"),
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
            F.lit(self.box_pixels).cast("int").alias("drawn_on"),
            reason.alias("reason"),
            locate_problem(BOX_TABLE, F.coalesce(malformed, unknown)).alias("detail"),
        )

    def _read_lists(self, spark: SparkSession) -> DataFrame:
        """Return the official split: stem, listed."""
        columns = {"stem": list(self.listed), "listed": list(self.listed.values())}
        return from_arrow(spark, pa.table(columns, pa.schema({name: pa.string() for name in columns})))


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


def guess_split(lists: Mapping[str, Sequence[str]]) -> list[Guess]:
    """Say which files were taken for the split lists, or that there are none; nothing for the published names."""
    if not lists:
        names = " and ".join(LISTS.values())
        return [Guess(f"no official split, since {names} are not there: patients are split by hash", "split.by")]
    if {split: [name] for split, name in LISTS.items()} == lists:
        return []
    taken = ", ".join(f"{' and '.join(names)} = {split}" for split, names in lists.items())
    return [Guess(f"official split by the words of file names: {taken}", "split.by=hash")]


def guess_boxes(tables: Sequence[str], side: int | None) -> list[Guess]:
    """Say on what images the boxes are taken to be drawn."""
    text = f"boxes drawn on images of {side} x {side} pixels, and scaled for square files of another size"
    return [Guess(text, "source.box_pixels")] if tables and side else []


def _is_image_name(column: str) -> Column:
    return F.coalesce(F.col(column).rlike(IMAGE_NAME), F.lit(False))
