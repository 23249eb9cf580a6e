"""The source DICOM: a folder of files, whose headers name patient and view, and a table of their findings.

Only the identifiers of instance, study and patient leave a header. Raw table rows are not kept, because nobody knows
what else a hospital writes into them.
"""

import csv
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config import schema
from chestai.errors import UserError
from chestai.lake.files import decode_text
from pipelines.data.files import InputFolder
from pipelines.spark.sources.file_names import match_names
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_columns import FILE, FINDINGS, LABELS, PATIENT, UID, LabelColumns, read_columns
from pipelines.spark.sources.tables import (
    WithoutBoxes,
    check_matches,
    locate_problem,
    no_uncertain_findings,
    open_root,
    parse_labels,
    read_csv_rows,
    with_keys,
)

DICOM_SUFFIX = r"(?i)\.(dcm|dicom|dic|ima)$"
UNCERTAIN = -1.0


@dataclass(frozen=True)
class Dicom(WithoutBoxes):
    """A folder of DICOM files and its label table, opened by `find`.

    Attributes:
        images: `pipelines.data.files.LISTING`; the key is the name in the table, or null: the UID is in the header.
    """

    folder: InputFolder
    name: str
    images: pa.Table
    tables: tuple[str]
    columns: LabelColumns
    guesses: tuple[Guess, ...]
    has_official_split: bool = False
    keeps_missing: bool = False

    @staticmethod
    def find(source: schema.Dicom) -> "Dicom":
        """Open the folder, recognise the columns of the label table and match its names with the files.

        Raises:
            UserError: No such folder or table, the table has no key or no finding, or it names none of the files.
        """
        folder = open_root(source.root, "/data/dicom")
        where = folder.location(source.labels)
        try:
            text = decode_text(folder.read(source.labels))
        except OSError as error:
            raise UserError(f"source.labels={source.labels}: there is no label table {where}") from error
        columns = read_columns(text, where)
        images, guesses = folder.list_images(may_be_dicom), columns.guesses
        if columns.key == UID:
            return Dicom(
                folder, source.name, with_keys(images, [None] * images.num_rows), (source.labels,), columns, guesses
            )
        at = columns.find(FILE) or 0
        rows = csv.reader(text.splitlines()[1:], delimiter=columns.delimiter)
        named = {row[at].strip().replace("\\", "/") for row in rows if len(row) > at and row[at].strip()}
        table = os.path.basename(source.labels)
        matched = match_names(named, images["path"].to_pylist(), table, "the names of the files")
        check_matches(matched, named, folder, source.labels)
        images, guesses = with_keys(images, matched.keys), (*guesses, *matched.guesses)
        return Dicom(folder, source.name, images, (source.labels,), columns, guesses)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return self.columns.vocabulary

    @property
    def note(self) -> str:
        return f"{self.tables[0]} by {self.columns.key}, {len(self.vocabulary)} findings"

    def list_images(self) -> pa.Table:
        """List the files that may be DICOM by their name, as `find` saw them."""
        return self.images

    def read_entries(self, spark: SparkSession) -> DataFrame:
        """Read the label table as `pipelines.spark.sources.tables.ENTRY_COLUMNS`. Only findings are in it."""
        roles, table = self.columns.roles, os.path.basename(self.tables[0])
        fields = [f"c{at}" for at in range(len(roles))]
        by_role = {role: field for role, field in zip(roles, fields, strict=True) if role is not None}
        rows = read_csv_rows(spark, self.folder.location(self.tables[0]), fields, self.columns.delimiter)
        key = F.regexp_replace(F.trim(by_role[self.columns.key]), r"\\", "/")
        malformed = F.when(F.col("malformed").isNotNull(), f"not {len(fields)} fields")
        malformed = malformed.when(F.coalesce(key, F.lit("")) == "", f"the column {self.columns.key} is blank")
        if FINDINGS in by_role:
            rows = rows.withColumn("parsed", parse_labels(by_role[FINDINGS], self.vocabulary))
            targets, uncertain = F.col("parsed.targets"), no_uncertain_findings()
            problem = F.when(F.col("parsed.problem").isNotNull(), "no finding, or an unknown one")
        else:
            findings = [(name, by_role[name]) for name in self.vocabulary]
            targets, problem = F.array(*(_target(field) for _, field in findings)), F.lit(None).cast("string")
            marks = [F.when(_value(field) == UNCERTAIN, F.lit(name)) for name, field in findings]
            uncertain = F.array_compact(F.array(*marks)).alias("uncertain")
            for name, field in findings:
                malformed = malformed.when(~_is_label(field), f"the column {name} is not 1, 0, -1 or blank")
        present = [F.when(targets[at] == 1, F.lit(name)) for at, name in enumerate(self.vocabulary)]
        reason = F.when(malformed.isNotNull(), "entry_unparsable").when(problem.isNotNull(), "unknown_finding")
        return rows.select(
            "line",
            F.concat(F.lit(f"{table} line "), "line").alias("text"),
            key.alias("key"),
            F.lit(None).cast("string").alias("image_id"),
            self._patient(by_role.get(PATIENT)).alias("patient_id"),
            F.lit(None).cast("string").alias("study_id"),
            F.lit(None).cast("float").alias("age_years"),
            F.lit(False).alias("impossible_age"),
            *(F.lit(None).cast("string").alias(name) for name in ("sex", "view")),
            F.array_compact(F.array(*present)).alias("findings"),
            targets.alias("targets"),
            uncertain,
            F.lit(None).cast("string").alias("listed"),
            reason.alias("reason"),
            locate_problem(table, F.coalesce(malformed, problem)).alias("detail"),
        )

    def _patient(self, field: str | None) -> Column:
        """Return the patient that a row names, as patients of headers are named; null if none."""
        if field is None:
            return F.lit(None).cast("string")
        blank = [word for word, label in LABELS.items() if label is None]
        patient = F.trim(field)
        return F.when(~F.lower(patient).isin(blank), F.concat(F.lit(f"{self.name}:"), patient))


def is_dicom_suffix(name: str) -> bool:
    """Whether a name ends as that of a DICOM file."""
    return bool(re.search(DICOM_SUFFIX, name))


def may_be_dicom(path: str) -> bool:
    """Whether a file has a DICOM suffix or none. Files are often named by a UID, whose last number looks like one."""
    name, suffix = PurePosixPath(path).name, PurePosixPath(path).suffix
    return name != "DICOMDIR" and (is_dicom_suffix(name) or not suffix or suffix[1:].isdigit())


def _target(field: str) -> Column:
    """Return 1, 0, or null = not known or uncertain."""
    return F.when(_value(field).isin(0.0, 1.0), _value(field)).cast("float")


def _value(field: str) -> Column:
    """Return the label that a cell means, null if none."""
    value = F.lit(None).cast("float")
    for label in {label for label in LABELS.values() if label is not None}:
        value = F.when(_word(field).isin([word for word in LABELS if LABELS[word] == label]), label).otherwise(value)
    return value


def _is_label(field: str) -> Column:
    return _word(field).isin(list(LABELS))


def _word(field: str) -> Column:
    return F.lower(F.coalesce(F.trim(field), F.lit("")))
