"""The source CheXpert, as published: train.csv and valid.csv, in the small or the full-size release.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.demographics import AP, LATERAL, PA
from chestai.labels.findings import CHEXPERT13, canonicalise
from chestai.labels.uncertainty import POLICY_TARGETS, resolve_policies
from pipelines.data.files import InputFolder
from pipelines.spark.sources.file_names import match_names
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.tables import (
    WithoutBoxes,
    check_matches,
    header_error,
    is_blank_or_in,
    is_impossible_age,
    locate_problem,
    open_root,
    parse_ages,
    read_column,
    read_csv_rows,
    read_first_line,
    with_keys,
)
from pipelines.spark.splits import TEST, TRAIN_VAL

# The split that each table stands for. Radiologists labelled the studies of valid.csv from the images.
TABLE_SPLITS = {"train.csv": TRAIN_VAL, "valid.csv": TEST}

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
FIELDS = HEADER.split(",")
OBSERVATIONS = FIELDS[5:]
PATHOLOGIES = FIELDS[6:]  # in the order of CHEXPERT13

POSITIVE, NEGATIVE, UNCERTAIN = ("1.0", "1"), ("0.0", "0"), ("-1.0", "-1")

# The part before these three differs between table and folders in the full-size release. They still identify an image,
# because no patient is in both tables.
IMAGE_PATH = r"^(?:.*/)?(patient\d+)/(study\d+)/(view\d+_(?:frontal|lateral))(\.(?:jpe?g|png))$"


@dataclass(frozen=True)
class Chexpert(WithoutBoxes):
    """A folder in the form of CheXpert, opened by `find`; images lie anywhere below it."""

    folder: InputFolder
    images: pa.Table
    tables: tuple[str, ...]
    guesses: tuple[Guess, ...]
    policies: Mapping[str, schema.Policy]
    note: str
    keeps_missing: bool
    vocabulary: tuple[str, ...] = CHEXPERT13

    @staticmethod
    def find(source: schema.Chexpert) -> "Chexpert":
        """Open the folder and check the headers of its tables.

        Raises:
            UserError: No such folder, neither table, a malformed table, or a policy for an unknown finding.
        """
        chosen = resolve_policies(source.uncertainty, source.uncertainty_of or {})
        folder = open_root(source.root, "/data/chexpert")
        present = folder.list_files()
        tables = tuple(table for table in TABLE_SPLITS if table in present)
        if not tables:
            raise UserError(
                f"source.root={source.root} holds neither train.csv nor valid.csv: "
                "put them there (the full-size release has them in its first batch)"
            )
        for table in tables:
            first = read_first_line(folder, table)
            if first != HEADER:
                raise header_error(folder, table, first, "CheXpert's table: download it again")
        exceptions = "".join(f", {finding} {policy}" for finding, policy in (source.uncertainty_of or {}).items())
        note = f"{' and '.join(tables)}; uncertain labels: {source.uncertainty}{exceptions}"
        images, guesses = match_images(folder, tables)
        return Chexpert(folder, images, tables, guesses, chosen, note, source.images == "optional")

    @property
    def has_official_split(self) -> bool:
        return len(self.tables) == len(TABLE_SPLITS)

    def list_images(self) -> pa.Table:
        """List the images as `find` saw them; their key is patient, study and view, the last parts of the path."""
        return self.images

    def read_entries(self, spark: SparkSession) -> DataFrame:
        """Read both label tables as `pipelines.spark.sources.tables.ENTRY_COLUMNS`."""
        return reduce(DataFrame.unionByName, [self._read_table(table, spark) for table in self.tables])

    def _read_table(self, table: str, spark: SparkSession) -> DataFrame:
        is_file = F.col("Path").rlike(IMAGE_PATH)
        parts = [F.when(is_file, F.regexp_extract("Path", IMAGE_PATH, group)) for group in (1, 2, 3, 4)]
        patient, study, view, suffix = parts
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(FIELDS)} fields")
            .when(~F.coalesce(is_file, F.lit(False)), "Path does not end as patient00001/study1/view1_frontal.jpg does")
            .when(~is_blank_or_in("Sex", ("Male", "Female", "Unknown")), "Sex is none of Male, Female and Unknown")
            .when(
                ~_trimmed("Frontal/Lateral").isin("Frontal", "Lateral"),
                "Frontal/Lateral is neither Frontal nor Lateral",
            )
            .when(~is_blank_or_in("AP/PA", (AP, PA, "LL", "RL")), "AP/PA is none of AP, PA, LL, RL and blank")
        )
        bad_label = F.coalesce(*[_describe_bad_label(observation) for observation in OBSERVATIONS])
        problem = F.coalesce(malformed, bad_label)
        targets = [_target(pathology, self.policies[canonicalise(pathology)]) for pathology in PATHOLOGIES]
        positive = [F.when(target == 1, name) for name, target in zip(CHEXPERT13, targets, strict=True)]
        uncertain = [F.when(_is_uncertain(pathology), canonicalise(pathology)) for pathology in PATHOLOGIES]
        rows = read_csv_rows(spark, self.folder.location(table), FIELDS).withColumn("age_years", parse_ages("Age"))
        return rows.select(
            "line",
            "text",
            F.concat(patient, F.lit("/"), study, F.lit("/"), view, suffix).alias("key"),
            F.concat(patient, F.lit("_"), study, F.lit("_"), view).alias("image_id"),
            patient.alias("patient_id"),
            F.concat(patient, F.lit("_"), study).alias("study_id"),
            "age_years",
            is_impossible_age("Age", F.col("age_years")).alias("impossible_age"),
            _parse_sex().alias("sex"),
            _parse_view().alias("view"),
            F.array_compact(F.array(*positive)).alias("findings"),
            F.array(*targets).alias("targets"),
            F.array_compact(F.array(*uncertain)).alias("uncertain"),
            F.lit(TABLE_SPLITS[table] if self.has_official_split else None).cast("string").alias("listed"),
            F.when(problem.isNotNull(), "entry_unparsable").alias("reason"),
            locate_problem(table, problem).alias("detail"),
        )


def match_images(folder: InputFolder, tables: Sequence[str]) -> tuple[pa.Table, tuple[Guess, ...]]:
    """List the images with the names in the tables as keys, and say what was guessed.

    Raises:
        UserError: No table names any of the files.
    """
    images = folder.list_images()
    paths = [path for table in tables for path in read_column(folder, table, 0)]
    matches = filter(None, (re.match(IMAGE_PATH, path) for path in paths))
    named = {"/".join(match.groups()[:3]) + match[4] for match in matches}
    matched = match_names(named, images["path"].to_pylist(), " and ".join(tables), "the names of the files")
    check_matches(matched, named, folder, tables[0])
    missing = [table for table in TABLE_SPLITS if table not in tables]
    alone = [
        Guess(f"no official split, since {table} is not there: patients are split by hash", "split.by")
        for table in missing
    ]
    return with_keys(images, matched.keys), (*matched.guesses, *alone)


def _trimmed(column: str) -> Column:
    """Return a field without surrounding blanks; an empty field is an empty text."""
    return F.coalesce(F.trim(column), F.lit(""))


def _parse_sex() -> Column:
    return F.when(_trimmed("Sex") == "Male", "M").when(_trimmed("Sex") == "Female", "F")


def _parse_view() -> Column:
    """Return `lateral`, or the projection of a frontal image if the table has it."""
    projection = F.when(_trimmed("AP/PA").isin(AP, PA), F.trim("AP/PA"))
    return F.when(_trimmed("Frontal/Lateral") == "Lateral", LATERAL).otherwise(projection)


def _describe_bad_label(observation: str) -> Column:
    """Return what is wrong with an observation's field, null if nothing.

    "No Finding" next to a positive pathology is allowed: published rows have it next to support devices, and the
    pathologies speak for themselves.
    """
    is_label = is_blank_or_in(observation, (*POSITIVE, *NEGATIVE, *UNCERTAIN))
    return F.when(~is_label, f"{observation} is none of 1.0, 0.0, -1.0 and blank")


def _target(pathology: str, policy: schema.Policy) -> Column:
    """Return 1, 0 or null = not known. Blank (the report does not mention it) is negative, as in the paper."""
    label = _trimmed(pathology)
    target = F.when(label.isin(*POSITIVE), 1.0).when(_is_uncertain(pathology), POLICY_TARGETS[policy])
    return target.when(label.isin("", *NEGATIVE), 0.0).cast("float")


def _is_uncertain(pathology: str) -> Column:
    return _trimmed(pathology).isin(*UNCERTAIN)
