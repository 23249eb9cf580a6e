"""The source DICOM: a folder of files, whose headers name patient and view, and a table of their findings.

Only the identifiers of instance, study and patient leave a header. Raw table rows are not kept, because nobody knows
what else a hospital writes into them.
"""

import csv
import io
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import KNOWN_FINDINGS, canonicalise
from pipelines.data.files import LISTING, InputFolder
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.tables import (
    WithoutBoxes,
    header_error,
    locate_problem,
    no_uncertain_findings,
    open_root,
    parse_labels,
    read_csv_rows,
)

UID, FILE = "SOPInstanceUID", "file"
KEYS = {"sopinstanceuid": UID, "file": FILE, "filename": FILE, "file_name": FILE}
FINDINGS = "findings"
UNCERTAIN = -1.0

SUFFIX = r"(?i)\.(dcm|dicom|dic|ima)$"


@dataclass(frozen=True)
class Dicom(WithoutBoxes):
    """A folder of DICOM files and its label table, opened by `find`.

    Attributes:
        columns: The table's columns in order: `UID` or `FILE` for the key, `FINDINGS`, or a finding of the vocabulary.
    """

    folder: InputFolder
    tables: tuple[str]
    columns: tuple[str, ...]
    vocabulary: tuple[str, ...]
    has_official_split: bool = False
    keeps_missing: bool = False
    guesses: tuple[Guess, ...] = ()

    @staticmethod
    def find(source: schema.Dicom) -> "Dicom":
        """Open the folder and check the header of the label table.

        Raises:
            UserError: No such folder or table, or the table has no key or no finding.
        """
        folder = open_root(source.root, "/data/dicom")
        try:
            text = folder.read(source.labels).decode("utf-8-sig", errors="replace")
        except OSError as error:
            where = folder.location(source.labels)
            raise UserError(f"source.labels={source.labels}: there is no label table {where}") from error
        rows = csv.reader(io.StringIO(text))
        columns = tuple(_canonical_column(name.strip()) for name in next(rows, []))
        keys, others = [name for name in columns if name in (UID, FILE)], {*columns} - {UID, FILE}
        mixed = FINDINGS in others and len(others) > 1
        if len(keys) != 1 or not others or mixed or len({*columns}) != len(columns):
            form = f"a label table: one column {UID} or {FILE}, and either `{FINDINGS}` or one column a finding"
            raise header_error(folder, source.labels, text.split("\n", 1)[0].rstrip(), form)
        if FINDINGS in others:
            at = columns.index(FINDINGS)
            labels = {canonicalise(name) for row in rows for field in row[at : at + 1] for name in field.split("|")}
            vocabulary = tuple(name for name in KNOWN_FINDINGS if name in labels)
        else:
            vocabulary = tuple(name for name in columns if name in others)
        if not vocabulary:
            raise UserError(f"{folder.location(source.labels)} names no known finding: {', '.join(KNOWN_FINDINGS)}")
        return Dicom(folder, (source.labels,), columns, vocabulary)

    @property
    def key(self) -> str:
        """The column by which the table identifies an image, `UID` or `FILE`."""
        return UID if UID in self.columns else FILE

    @property
    def note(self) -> str:
        return f"{self.tables[0]} by {self.key}, {len(self.vocabulary)} findings"

    def list_images(self) -> pa.Table:
        """List files that may be DICOM by their name. Their key is their name, or null: the UID is in the header."""
        listing = self.folder.list_images(_may_be_dicom)
        by_name = pc.replace_substring_regex(listing["key"], SUFFIX, "")
        key = pa.nulls(listing.num_rows, pa.string()) if self.key == UID else by_name
        return listing.set_column(LISTING.get_field_index("key"), "key", key)

    def read_entries(self, spark: SparkSession) -> DataFrame:
        """Read the label table as `pipelines.spark.sources.tables.ENTRY_COLUMNS`. Only findings are in it."""
        fields = [f"c{at}" for at in range(len(self.columns))]
        rows = read_csv_rows(spark, self.folder.location(self.tables[0]), fields)
        key = F.trim(fields[self.columns.index(self.key)])
        malformed = F.when(F.col("malformed").isNotNull(), f"not {len(fields)} fields")
        malformed = malformed.when(F.coalesce(key, F.lit("")) == "", f"the column {self.key} is blank")
        if FINDINGS in self.columns:
            rows = rows.withColumn("parsed", parse_labels(fields[self.columns.index(FINDINGS)], self.vocabulary))
            targets, uncertain = F.col("parsed.targets"), no_uncertain_findings()
            problem = F.when(F.col("parsed.problem").isNotNull(), "no finding, or an unknown one")
        else:
            findings = [(name, field) for name, field in zip(self.columns, fields, strict=True) if name != self.key]
            targets, problem = F.array(*(_target(field) for _, field in findings)), F.lit(None).cast("string")
            marks = [F.when(_value(field) == UNCERTAIN, F.lit(name)) for name, field in findings]
            uncertain = F.array_compact(F.array(*marks)).alias("uncertain")
            for name, field in findings:
                malformed = malformed.when(~_is_label(field), f"the column {name} is not 1, 0, -1 or blank")
        present = [F.when(targets[at] == 1, F.lit(name)) for at, name in enumerate(self.vocabulary)]
        reason = F.when(malformed.isNotNull(), "entry_unparsable").when(problem.isNotNull(), "unknown_finding")
        blank = {"image_id": "string", "patient_id": "string", "study_id": "string", "age_years": "float"}
        return rows.select(
            "line",
            F.concat(F.lit(f"{os.path.basename(self.tables[0])} line "), "line").alias("text"),
            F.regexp_replace(key, SUFFIX, "").alias("key") if self.key == FILE else key.alias("key"),
            *(F.lit(None).cast(kind).alias(name) for name, kind in blank.items()),
            F.lit(False).alias("impossible_age"),
            *(F.lit(None).cast("string").alias(name) for name in ("sex", "view")),
            F.array_compact(F.array(*present)).alias("findings"),
            targets.alias("targets"),
            uncertain,
            F.lit(None).cast("string").alias("listed"),
            reason.alias("reason"),
            locate_problem(os.path.basename(self.tables[0]), F.coalesce(malformed, problem)).alias("detail"),
        )


def _canonical_column(name: str) -> str:
    """Return what a column of the table holds: a key, the findings, or one finding."""
    key = KEYS.get(name.lower())
    return key or (FINDINGS if name.lower() == FINDINGS else canonicalise(name))


def _may_be_dicom(name: str) -> bool:
    """Whether a name has a DICOM suffix or none. Files are often named by a UID, whose last number looks like one."""
    suffix = PurePosixPath(name).suffix
    return name != "DICOMDIR" and bool(re.search(SUFFIX, name) or not suffix or suffix[1:].isdigit())


def _target(field: str) -> Column:
    """Return 1, 0, or null = not known or uncertain."""
    return F.when(_value(field).isin(0.0, 1.0), _value(field))


def _value(field: str) -> Column:
    return F.trim(field).cast("float")


def _is_label(field: str) -> Column:
    text = F.coalesce(F.trim(field), F.lit(""))
    return (text == "") | F.coalesce(text.cast("float").isin(UNCERTAIN, 0.0, 1.0), F.lit(False))
