"""The source of any label table, with images of any form: its columns are named in the configuration.

Tables are read as a whole on the driver: 377,110 rows with two joins, as MIMIC-CXR has them, take 22 s and 1.1 GiB. Raw
rows are not kept, because nobody knows what else is in them.
"""

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import canonicalise
from chestai.labels.uncertainty import POLICY_TARGETS, Policy
from pipelines.data.files import InputFolder
from pipelines.spark.arrow_io import from_arrow
from pipelines.spark.sources.dicom import may_be_dicom
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_table.boxes import read_boxes
from pipelines.spark.sources.label_table.drawn_boxes import make_boxes
from pipelines.spark.sources.label_table.entries import CODES, ENTRIES, make_entries, merge_entries
from pipelines.spark.sources.label_table.images import list_files_as_rows, list_images, match_images
from pipelines.spark.sources.label_table.joins import read_rows
from pipelines.spark.sources.label_table.labels import NEGATIVE, POSITIVE, UNCERTAIN, read_labels
from pipelines.spark.sources.label_table.reader import find_table
from pipelines.spark.sources.tables import BOX_COLUMNS, open_root
from pipelines.spark.splits import TEST

MAX_REPEATED = 0.1  # of the rows, where each image should have one


@dataclass(frozen=True)
class LabelTable:
    """A label table and its images, opened by `find`.

    Attributes:
        images: `pipelines.data.files.LISTING`; the key is the name in the table, or null: the UID is in the header.
        entries: `entries.ENTRIES`.
        boxes: `entries.BOXES`.
        policies: By finding, for uncertain labels.
    """

    folder: InputFolder
    tables: tuple[str, ...]
    images: pa.Table
    entries: pa.Table
    boxes: pa.Table
    vocabulary: tuple[str, ...]
    policies: dict[str, Policy]
    keeps_missing: bool
    note: str
    guesses: tuple[Guess, ...]

    @staticmethod
    def find(source: schema.Table) -> "LabelTable":
        """Read the tables and match their rows with the files.

        Raises:
            UserError: No such folder, table or column, cells that mean nothing, or no row that names a file.
        """
        folder = open_root(source.root, "/data/films")
        named = [source.tables] if isinstance(source.tables, str) else source.tables or []
        tables = [find_table(folder, name) for name in named]
        joins = [join.model_copy(update={"table": find_table(folder, join.table)}) for join in source.join]
        read, join_guesses = read_rows(folder, tables, source.header, joins) if tables else (None, [])
        images = list_images(folder, source.files)
        rows = read or list_files_as_rows(images)
        labels = read_labels(rows, source.labels, source.words.label)
        policies = resolve_policies_of(source, labels.vocabulary)
        every, entry_guesses = make_entries(rows, labels, source)
        entries = every
        if source.labels.rows == "one" and source.labels.raters is None:
            check_rows(every, rows.where)
        else:
            readers = rows.find(source.labels.raters, "source.labels.raters") if source.labels.raters else None
            entries = merge_entries(every, labels.codes, readers, source.labels.agree)
        images, match_guesses = match_images(images, {*entries["key"].dropna()}, folder, source, rows.where)
        found = read_boxes(rows, source.boxes)
        boxes, box_guesses = make_boxes(found, labels, every, entries, source.boxes.pixels)
        keys = entries["key"].nunique()
        note = f"{rows.where}, {len(every):,} rows of {keys:,} images, {len(labels.vocabulary)} findings"
        return LabelTable(
            folder,
            (*tables, *(join.table for join in joins)),
            images,
            pa.Table.from_pandas(complete_ids(entries, images, source), ENTRIES, preserve_index=False),
            boxes,
            labels.vocabulary,
            policies,
            source.images == "optional",
            note,
            (*join_guesses, *labels.guesses, *entry_guesses, *match_guesses, *box_guesses),
        )

    @property
    def has_official_split(self) -> bool:
        """Whether the table's split has a test part."""
        return TEST in self.entries["listed"].to_pylist()

    def list_images(self) -> pa.Table:
        """List the images as `find` saw them."""
        return self.images

    def read_entries(self, spark: SparkSession) -> DataFrame:
        """Return one row per image, and one per bad row, as `pipelines.spark.sources.tables.ENTRY_COLUMNS`."""
        rows = from_arrow(spark, self.entries)
        at = {finding: F.substring("codes", place, 1) for place, finding in enumerate(self.vocabulary, 1)}
        targets = {
            finding: F.when(code == CODES[POSITIVE], 1.0)
            .when(code == CODES[NEGATIVE], 0.0)
            .when(code == CODES[UNCERTAIN], POLICY_TARGETS[self.policies[finding]])
            .cast("float")
            for finding, code in at.items()
        }
        present = [F.when(target == 1, F.lit(finding)) for finding, target in targets.items()]
        doubtful = [F.when(code == CODES[UNCERTAIN], F.lit(finding)) for finding, code in at.items()]
        age = F.when(~F.isnan("age_years"), F.col("age_years")).alias("age_years")
        return rows.select(
            *("line", "text", "key", "image_id", "patient_id", "study_id"),
            age,
            *("impossible_age", "sex", "view"),
            F.array_compact(F.array(*present)).alias("findings"),
            F.array(*targets.values()).alias("targets"),
            F.array_compact(F.array(*doubtful)).alias("uncertain"),
            *("listed", "reason", "detail"),
        )

    def read_boxes(self, spark: SparkSession) -> DataFrame:
        """Return the boxes as `pipelines.spark.sources.tables.BOX_COLUMNS`."""
        if not self.boxes.num_rows:
            return spark.createDataFrame([], BOX_COLUMNS)
        return from_arrow(spark, self.boxes)


def resolve_policies_of(source: schema.Table, vocabulary: tuple[str, ...]) -> dict[str, Policy]:
    """Return the label policy of each finding.

    Raises:
        UserError: An exception names something other than a finding of the table.
    """
    own = {canonicalise(finding): policy for finding, policy in source.uncertainty_of.items()}
    unknown = next((finding for finding in own if finding not in vocabulary), None)
    if unknown is not None:
        raise UserError(f"source.uncertainty_of names {unknown}, but the findings are {', '.join(vocabulary)}")
    return {finding: own.get(finding, source.uncertainty) for finding in vocabulary}


def check_rows(entries: pd.DataFrame, where: str) -> None:
    """Check that hardly any image has several rows.

    Raises:
        UserError: More than a tenth of the rows name an image that an earlier row names.
    """
    repeated = int(entries["key"].dropna().duplicated().sum())
    if repeated > MAX_REPEATED * len(entries):
        raise UserError(
            f"{repeated:,} of {len(entries):,} rows of {where} name an image that an earlier row names: if each adds "
            "its findings, set source.labels.rows=several, or name the reader of a row with source.labels.raters"
        )


def complete_ids(entries: pd.DataFrame, images: pa.Table, source: schema.Table) -> pd.DataFrame:
    """Make images their own study, and their own patient if no column names it; DICOM files have it in their header."""
    paths, keys = images["path"].to_pylist(), images["key"].to_pylist()
    by_header = {key for key, path in zip(keys, paths, strict=True) if may_be_dicom(path)}
    free = ~entries["key"].isin(by_header) & (None not in by_header)
    own = entries["image_id"].where(free, None)
    return entries.assign(
        patient_id=entries["patient_id"] if source.columns.patient else own,
        study_id=entries["study_id"].where(entries["study_id"].notnull(), own),
    )
