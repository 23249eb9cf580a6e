"""A folder of DICOM files with a label table: the header says who and how, the table what was found.

Only identifiers of instance, study and patient leave a header. The table's rows are not kept as they stand, for nobody
knows what else a hospital writes into them.
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
from chestai.labels.findings import KNOWN, canonical
from pipelines.data.files import LISTING, InputFolder
from pipelines.spark.sources.tables import (
    at_line,
    folder_of,
    labels,
    no_boxes,
    none_uncertain,
    read_rows,
    wrong_header,
)

UID, FILE = "SOPInstanceUID", "file"
KEYS = {"sopinstanceuid": UID, "file": FILE, "filename": FILE, "file_name": FILE}
FINDINGS = "findings"
UNCERTAIN = -1.0

SUFFIX = r"(?i)\.(dcm|dicom|dic|ima)$"


@dataclass(frozen=True)
class Dicom:
    """A folder of DICOM files and its label table, found by `find`.

    Attributes:
        columns: the table's, in order: `UID` or `FILE` for the key, `FINDINGS`, or a finding of the vocabulary.
    """

    folder: InputFolder
    tables: tuple[str]
    columns: tuple[str, ...]
    vocabulary: tuple[str, ...]
    has_lists: bool = False
    keeps_missing: bool = False

    @staticmethod
    def find(source: schema.Dicom) -> "Dicom":
        """Look at the folder and at the label table's header.

        Raises:
            UserError: no such folder or table, or the table names no key or no finding.
        """
        folder = folder_of(source.root, "/data/dicom")
        try:
            text = folder.read(source.labels).decode("utf-8-sig", errors="replace")
        except OSError as error:
            where = folder.location(source.labels)
            raise UserError(f"source.labels={source.labels}: there is no label table {where}") from error
        rows = csv.reader(io.StringIO(text))
        columns = tuple(_column(name.strip()) for name in next(rows, []))
        keys, others = [name for name in columns if name in (UID, FILE)], {*columns} - {UID, FILE}
        mixed = FINDINGS in others and len(others) > 1
        if len(keys) != 1 or not others or mixed or len({*columns}) != len(columns):
            form = f"a label table: one column {UID} or {FILE}, and either `{FINDINGS}` or one column a finding"
            raise wrong_header(folder, source.labels, text.split("\n", 1)[0].rstrip(), form)
        if FINDINGS in others:
            at = columns.index(FINDINGS)
            named = {canonical(name) for row in rows for name in row[at : at + 1] for name in name.split("|")}
            vocabulary = tuple(name for name in KNOWN if name in named)
        else:
            vocabulary = tuple(name for name in columns if name in others)
        if not vocabulary:
            raise UserError(f"{folder.location(source.labels)} names no finding that is known: {', '.join(KNOWN)}")
        return Dicom(folder, (source.labels,), columns, vocabulary)

    @property
    def key(self) -> str:
        """What the table names an image by."""
        return UID if UID in self.columns else FILE

    @property
    def note(self) -> str:
        return f"{self.tables[0]} by {self.key}, {len(self.vocabulary)} findings"

    def listing(self) -> pa.Table:
        """Files that may be DICOM by their name; by UID their key is in their header."""
        listing = self.folder.images(_may_be_dicom)
        by_name = pc.replace_substring_regex(listing["key"], SUFFIX, "")
        key = pa.nulls(listing.num_rows, pa.string()) if self.key == UID else by_name
        return listing.set_column(LISTING.get_field_index("key"), "key", key)

    def entries(self, spark: SparkSession) -> DataFrame:
        """The label table, as `pipelines.spark.sources.tables.ENTRY`; all but findings is left to the header."""
        fields = [f"c{at}" for at in range(len(self.columns))]
        rows = read_rows(spark, self.folder.location(self.tables[0]), fields)
        key = F.trim(fields[self.columns.index(self.key)])
        malformed = F.when(F.col("malformed").isNotNull(), f"not {len(fields)} fields")
        malformed = malformed.when(F.coalesce(key, F.lit("")) == "", f"the column {self.key} is blank")
        if FINDINGS in self.columns:
            rows = rows.withColumn("parsed", labels(fields[self.columns.index(FINDINGS)], self.vocabulary))
            targets, uncertain = F.col("parsed.targets"), none_uncertain()
            problem = F.when(F.col("parsed.problem").isNotNull(), "no finding, or one that is not known")
        else:
            named = [(name, field) for name, field in zip(self.columns, fields, strict=True) if name != self.key]
            targets, problem = F.array(*(_target(field) for _, field in named)), F.lit(None).cast("string")
            unsure = [F.when(_value(field) == UNCERTAIN, F.lit(name)) for name, field in named]
            uncertain = F.array_compact(F.array(*unsure)).alias("uncertain")
            for name, field in named:
                malformed = malformed.when(_is_no_label(field), f"the column {name} is not 1, 0, -1 or blank")
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
            at_line(os.path.basename(self.tables[0]), F.coalesce(malformed, problem)).alias("detail"),
        )

    def boxes(self, spark: SparkSession) -> DataFrame:
        """None."""
        return no_boxes(spark)


def _column(name: str) -> str:
    """What a column of the table is: a key, the findings, or one finding."""
    known = KEYS.get(name.lower())
    return known or (FINDINGS if name.lower() == FINDINGS else canonical(name))


def _may_be_dicom(name: str) -> bool:
    """A DICOM suffix, or none: files are often called by a UID, whose last number looks like one."""
    suffix = PurePosixPath(name).suffix
    return name != "DICOMDIR" and bool(re.search(SUFFIX, name) or not suffix or suffix[1:].isdigit())


def _target(field: str) -> Column:
    """1, 0, or null = not known, as is what is uncertain."""
    return F.when(_value(field).isin(0.0, 1.0), _value(field))


def _value(field: str) -> Column:
    return F.trim(field).cast("float")


def _is_no_label(field: str) -> Column:
    text = F.coalesce(F.trim(field), F.lit(""))
    return ~((text == "") | F.coalesce(text.cast("float").isin(UNCERTAIN, 0.0, 1.0), F.lit(False)))
