"""CheXpert as published: train.csv and valid.csv, in the small release or the full-size one.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.demographics import AP, LATERAL, PA
from chestai.labels.findings import CHEXPERT13, canonical
from chestai.labels.uncertainty import TARGETS, policies
from pipelines.data.files import InputFolder
from pipelines.spark.sources.tables import (
    at_line,
    first_line,
    folder_of,
    impossible,
    no_boxes,
    one_of,
    read_rows,
    wrong_header,
    years,
)
from pipelines.spark.splits import TEST, TRAIN_VAL

# The tables and the split that each stands for: valid.csv's studies were labelled by radiologists, from the images.
LISTED = {"train.csv": TRAIN_VAL, "valid.csv": TEST}

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
FIELDS = HEADER.split(",")
OBSERVATIONS = FIELDS[5:]
PATHOLOGIES = FIELDS[6:]  # in the order of CHEXPERT13

POSITIVE, NEGATIVE, UNCERTAIN = ("1.0", "1"), ("0.0", "0"), ("-1.0", "-1")

# What comes before differs between the table and the folders of the full-size release; patients are never in both
# tables, so these three name an image.
FILE = r"^(?:.*/)?(patient\d+)/(study\d+)/(view\d+_(?:frontal|lateral))(\.(?:jpe?g|png))$"


@dataclass(frozen=True)
class Chexpert:
    """A folder in the form of CheXpert, found by `find`; images lie anywhere below it."""

    folder: InputFolder
    tables: tuple[str, ...]
    policies: Mapping[str, schema.Policy]
    note: str
    keeps_missing: bool
    vocabulary: tuple[str, ...] = CHEXPERT13

    @staticmethod
    def find(source: schema.Chexpert) -> "Chexpert":
        """Look at the folder and at the headers of its tables.

        Raises:
            UserError: there is no such folder, neither table, a table of another form, or a policy for no finding.
        """
        chosen = policies(source.uncertainty, source.uncertainty_of or {})
        folder = folder_of(source.root, "/data/chexpert")
        present = folder.files()
        tables = tuple(table for table in LISTED if table in present)
        if not tables:
            raise UserError(
                f"source.root={source.root} holds neither train.csv nor valid.csv: "
                "put them there (the full-size release has them in its first batch)"
            )
        for table in tables:
            first = first_line(folder, table)
            if first != HEADER:
                raise wrong_header(folder, table, first, "CheXpert's table: download it again")
        exceptions = "".join(f", {finding} {policy}" for finding, policy in (source.uncertainty_of or {}).items())
        note = f"{' and '.join(tables)}; uncertain labels: {source.uncertainty}{exceptions}"
        return Chexpert(folder, tables, chosen, note, source.images == "optional")

    @property
    def has_lists(self) -> bool:
        return len(self.tables) == len(LISTED)

    def listing(self) -> pa.Table:
        """Images by patient, study and view, the last three parts of their path."""
        images = self.folder.images()
        keys = ["/".join(path.split("/")[-3:]) for path in images["path"].to_pylist()]
        return images.set_column(images.schema.get_field_index("key"), "key", pa.array(keys, pa.string()))

    def entries(self, spark: SparkSession) -> DataFrame:
        """Both label tables, as `pipelines.spark.sources.tables.ENTRY`."""
        return reduce(DataFrame.unionByName, [self._entries_of(table, spark) for table in self.tables])

    def boxes(self, spark: SparkSession) -> DataFrame:
        """None, as `pipelines.spark.sources.tables.BOX`."""
        return no_boxes(spark)

    def _entries_of(self, table: str, spark: SparkSession) -> DataFrame:
        is_file = F.col("Path").rlike(FILE)
        parts = [F.when(is_file, F.regexp_extract("Path", FILE, group)) for group in (1, 2, 3, 4)]
        patient, study, view, suffix = parts
        malformed = (
            F.when(F.col("malformed").isNotNull(), f"not {len(FIELDS)} fields")
            .when(~F.coalesce(is_file, F.lit(False)), "Path does not end as patient00001/study1/view1_frontal.jpg does")
            .when(~one_of("Sex", ("Male", "Female", "Unknown")), "Sex is none of Male, Female and Unknown")
            .when(
                ~_trimmed("Frontal/Lateral").isin("Frontal", "Lateral"),
                "Frontal/Lateral is neither Frontal nor Lateral",
            )
            .when(~one_of("AP/PA", (AP, PA, "LL", "RL")), "AP/PA is none of AP, PA, LL, RL and blank")
        )
        unlabelled = F.coalesce(*[_not_a_label(observation) for observation in OBSERVATIONS])
        problem = F.coalesce(malformed, unlabelled)
        targets = [_target(pathology, self.policies[canonical(pathology)]) for pathology in PATHOLOGIES]
        positive = [F.when(target == 1, name) for name, target in zip(CHEXPERT13, targets, strict=True)]
        uncertain = [F.when(_is_uncertain(pathology), canonical(pathology)) for pathology in PATHOLOGIES]
        rows = read_rows(spark, self.folder.location(table), FIELDS).withColumn("age_years", years("Age"))
        return rows.select(
            "line",
            "text",
            F.concat(patient, F.lit("/"), study, F.lit("/"), view, suffix).alias("key"),
            F.concat(patient, F.lit("_"), study, F.lit("_"), view).alias("image_id"),
            patient.alias("patient_id"),
            F.concat(patient, F.lit("_"), study).alias("study_id"),
            "age_years",
            impossible("Age", F.col("age_years")).alias("impossible_age"),
            _sex().alias("sex"),
            _view().alias("view"),
            F.array_compact(F.array(*positive)).alias("findings"),
            F.array(*targets).alias("targets"),
            F.array_compact(F.array(*uncertain)).alias("uncertain"),
            F.lit(LISTED[table] if self.has_lists else None).cast("string").alias("listed"),
            F.when(problem.isNotNull(), "entry_unparsable").alias("reason"),
            at_line(table, problem).alias("detail"),
        )


def _trimmed(column: str) -> Column:
    """A field without blanks around it; an empty one is an empty text."""
    return F.coalesce(F.trim(column), F.lit(""))


def _sex() -> Column:
    return F.when(_trimmed("Sex") == "Male", "M").when(_trimmed("Sex") == "Female", "F")


def _view() -> Column:
    """`lateral`, or the projection of a frontal image where the table knows it."""
    projection = F.when(_trimmed("AP/PA").isin(AP, PA), F.trim("AP/PA"))
    return F.when(_trimmed("Frontal/Lateral") == "Lateral", LATERAL).otherwise(projection)


def _not_a_label(observation: str) -> Column:
    """What is wrong with an observation's field; null where nothing is.

    "No Finding" beside a positive pathology is no fault: in the published rows it stands beside support devices, and
    the pathologies speak for themselves.
    """
    is_label = one_of(observation, (*POSITIVE, *NEGATIVE, *UNCERTAIN))
    return F.when(~is_label, f"{observation} is none of 1.0, 0.0, -1.0 and blank")


def _target(pathology: str, policy: schema.Policy) -> Column:
    """1, 0 or null = not known. Blank, a pathology that the report does not mention, is negative, as in the paper."""
    said = _trimmed(pathology)
    target = F.when(said.isin(*POSITIVE), 1.0).when(_is_uncertain(pathology), TARGETS[policy])
    return target.when(said.isin("", *NEGATIVE), 0.0).cast("float")


def _is_uncertain(pathology: str) -> Column:
    return _trimmed(pathology).isin(*UNCERTAIN)
