"""Describe a build: counts, class balance, co-occurrence, brightness, and the ID that follows from its content."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from chestai.labels.balance import compute_balance_weight
from chestai.labels.demographics import LATERAL
from pipelines.spark.splits import SPLITS, TRAIN

# Sums of decimals are exact, so the order of addition does not matter; sums of floats are not.
EXACT_DECIMAL = "decimal(18,15)"


@dataclass(frozen=True)
class DatasetStatistics:
    """The fields of the same names in `chestai.lake.snapshot.Snapshot`."""

    splits: dict[str, dict[str, Any]]
    pos_weight: tuple[float, ...]
    cooccurrence: tuple[tuple[int, ...], ...]
    pixel_mean: float
    pixel_std: float


def compute_statistics(gold: DataFrame, vocabulary: Sequence[str]) -> DatasetStatistics:
    """Compute the statistics of gold images.

    Lateral views are counted separately and in nothing else. The pixel mean and deviation are those of the train split,
    or of all images if it has no file; each image with a file weighs the same, and without files they are NaN.

    Args:
        gold: split, patient_id, view, path, targets, pixel_mean and pixel_std.
        vocabulary: The findings, in the order of targets.
    """
    gold = gold.withColumn("lateral", F.col("view").eqNullSafe(LATERAL))
    labelled = [F.count(F.col("targets")[index]).alias(f"labelled{index}") for index in range(len(vocabulary))]
    positive = [F.sum(F.col("targets")[index]).alias(f"positive{index}") for index in range(len(vocabulary))]
    rows = gold.groupBy("split", "lateral").agg(
        F.count("*").alias("images"),
        F.countDistinct("patient_id").alias("patients"),
        F.count("path").alias("files"),
        F.sum(F.col("pixel_mean").cast(EXACT_DECIMAL)).alias("mean"),
        F.sum((F.col("pixel_mean") ** 2 + F.col("pixel_std") ** 2).cast(EXACT_DECIMAL)).alias("mean_square"),
        *labelled,
        *positive,
    )
    groups = rows.collect()
    laterals = {row["split"]: int(row["images"]) for row in groups if row["lateral"]}
    frontals = {row["split"]: row for row in groups if not row["lateral"]}
    train = frontals.get(TRAIN)
    pixel_mean, pixel_std = _compute_brightness([train] if train and train["files"] else list(frontals.values()))
    return DatasetStatistics(
        splits={split: _describe_split(frontals.get(split), laterals.get(split, 0), vocabulary) for split in SPLITS},
        pos_weight=tuple(_compute_pos_weight(train, index) for index in range(len(vocabulary))),
        cooccurrence=_count_cooccurrence(gold.where("not lateral"), len(vocabulary)),
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
    )


def compute_content_id(gold: DataFrame, vocabulary: Sequence[str], etl_version: int) -> str:
    """Return 12 hex digits that depend on the content of gold alone: not on paths, order or time.

    Rows are hashed into 256 buckets, the sorted hashes of each bucket into one hash, and those in the driver: so no
    process sees all rows.

    Args:
        gold: image_id, sha256, targets, split, uncertain.
        etl_version: Of the ETL's code.
    """
    targets = F.transform("targets", lambda target: F.coalesce(target.cast("string"), F.lit("null")))
    sha256 = F.coalesce("sha256", F.lit("no file"))
    # Null, which concat_ws leaves out, where nothing is uncertain: such rows keep the hash from before this column.
    uncertain = F.when(F.size("uncertain") > 0, F.array_join(F.array_sort("uncertain"), ","))
    row = F.sha2(F.concat_ws("|", "image_id", sha256, "split", F.array_join(targets, ","), uncertain), 256)
    hashes = gold.select(row.alias("row"), F.substring(row, 1, 2).alias("bucket"))
    bucket = F.sha2(F.array_join(F.sort_array(F.collect_list("row")), ""), 256)
    buckets = hashes.groupBy("bucket").agg(bucket.alias("digest")).collect()
    content = [etl_version, list(vocabulary), sorted(tuple(bucket) for bucket in buckets)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _compute_brightness(groups: Sequence[Row]) -> tuple[float, float]:
    """Return mean and deviation of the pixels of all images with a file, in units of full scale."""
    groups = [row for row in groups if row["files"]]
    files = sum(int(row["files"]) for row in groups)
    if not files:
        return math.nan, math.nan
    mean = float(sum(row["mean"] for row in groups)) / files
    mean_square = float(sum(row["mean_square"] for row in groups)) / files
    return mean, math.sqrt(max(mean_square - mean**2, 0.0))


def _describe_split(row: Row | None, laterals: int, vocabulary: Sequence[str]) -> dict[str, Any]:
    """Count frontal images, those with a file, patients and laterals; per finding, positives and their prevalence."""
    positives = {name: int(row[f"positive{at}"] or 0) if row else 0 for at, name in enumerate(vocabulary)}
    labelled = {name: int(row[f"labelled{at}"]) if row else 0 for at, name in enumerate(vocabulary)}
    return {
        "images": int(row["images"]) if row else 0,
        "files": int(row["files"]) if row else 0,
        "patients": int(row["patients"]) if row else 0,
        "laterals": laterals,
        "positives": positives,
        "prevalence": {name: positives[name] / labelled[name] if labelled[name] else 0.0 for name in vocabulary},
    }


def _compute_pos_weight(train: Row | None, index: int) -> float:
    """Return the positive weight of a finding in the train split; 1 without a train split."""
    if train is None:
        return 1.0
    return compute_balance_weight(int(train[f"positive{index}"] or 0), int(train[f"labelled{index}"]))


def _count_cooccurrence(gold: DataFrame, findings: int) -> tuple[tuple[int, ...], ...]:
    """Count the images that have both findings; the diagonal counts those that have the one."""
    indices = F.transform("targets", lambda target, index: F.when(target == 1, index))
    present = gold.select(F.filter(indices, lambda index: index.isNotNull()).alias("indices"))
    first = present.select("indices", F.explode("indices").alias("a"))
    pairs = first.select("a", F.explode("indices").alias("b"))
    counts = [[0] * findings for _ in range(findings)]
    for row in pairs.groupBy("a", "b").count().collect():
        counts[row["a"]][row["b"]] = int(row["count"])
    return tuple(map(tuple, counts))
