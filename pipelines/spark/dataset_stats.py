"""What a build holds: counts, balance, co-occurrence, brightness, and the name that its content gives it."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from chestai.labels.balance import pos_weight
from chestai.labels.demographics import LATERAL
from pipelines.spark.splits import SPLITS, TRAIN

# Sums of decimals are exact, so that no order of addition shows in them; sums of floats are not.
EXACT = "decimal(18,15)"


@dataclass(frozen=True)
class Statistics:
    """See `chestai.lake.lake.Snapshot`, whose fields these are."""

    splits: dict[str, dict[str, Any]]
    pos_weight: tuple[float, ...]
    cooccurrence: tuple[tuple[int, ...], ...]
    pixel_mean: float
    pixel_std: float


def measure(gold: DataFrame, vocabulary: Sequence[str]) -> Statistics:
    """Statistics of gold images: split, patient_id, view, path, targets, pixel_mean and pixel_std.

    Lateral views are counted apart and in nothing else. Every image with a file weighs the same in the pixels' mean
    and deviation, which are those of the train split, of all images where it has no file; NaN where none has.
    """
    gold = gold.withColumn("lateral", F.col("view").eqNullSafe(LATERAL))
    known = [F.count(F.col("targets")[index]).alias(f"known{index}") for index in range(len(vocabulary))]
    positive = [F.sum(F.col("targets")[index]).alias(f"positive{index}") for index in range(len(vocabulary))]
    rows = gold.groupBy("split", "lateral").agg(
        F.count("*").alias("images"),
        F.countDistinct("patient_id").alias("patients"),
        F.count("path").alias("files"),
        F.sum(F.col("pixel_mean").cast(EXACT)).alias("mean"),
        F.sum((F.col("pixel_mean") ** 2 + F.col("pixel_std") ** 2).cast(EXACT)).alias("mean_square"),
        *known,
        *positive,
    )
    counted = rows.collect()
    laterals = {row["split"]: int(row["images"]) for row in counted if row["lateral"]}
    found = {row["split"]: row for row in counted if not row["lateral"]}
    train = found.get(TRAIN)
    lit = [train] if train and train["files"] else [row for row in found.values() if row["files"]]
    files = sum(int(row["files"]) for row in lit)
    mean = float(sum(row["mean"] for row in lit)) / files if files else math.nan
    mean_square = float(sum(row["mean_square"] for row in lit)) / files if files else math.nan
    return Statistics(
        splits={split: _counts(found.get(split), laterals.get(split, 0), vocabulary) for split in SPLITS},
        pos_weight=tuple(_pos_weight(train, index) for index in range(len(vocabulary))),
        cooccurrence=_cooccurrence(gold.where("not lateral"), len(vocabulary)),
        pixel_mean=mean,
        pixel_std=math.sqrt(max(mean_square - mean**2, 0.0)) if files else math.nan,
    )


def content_id(gold: DataFrame, vocabulary: Sequence[str], form: int) -> str:
    """12 hex digits that stand for the content of gold and for nothing else: not for paths, order or time.

    Args:
        gold: image_id, sha256, targets, split, uncertain.
        form: the number of the ETL's code.

    Rows are hashed into 256 buckets, each bucket's sorted hashes into one, those here: nobody sees all rows.
    """
    targets = F.transform("targets", lambda target: F.coalesce(target.cast("string"), F.lit("null")))
    sha256 = F.coalesce("sha256", F.lit("no file"))
    # Null, which concat_ws leaves out, where nothing is uncertain: what such rows are called is older than the column.
    uncertain = F.when(F.size("uncertain") > 0, F.array_join(F.array_sort("uncertain"), ","))
    row = F.sha2(F.concat_ws("|", "image_id", sha256, "split", F.array_join(targets, ","), uncertain), 256)
    hashes = gold.select(row.alias("row"), F.substring(row, 1, 2).alias("bucket"))
    bucket = F.sha2(F.array_join(F.sort_array(F.collect_list("row")), ""), 256)
    buckets = hashes.groupBy("bucket").agg(bucket.alias("digest")).collect()
    content = [form, list(vocabulary), sorted(tuple(bucket) for bucket in buckets)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _counts(row: Row | None, laterals: int, vocabulary: Sequence[str]) -> dict[str, Any]:
    """Frontal images, those with a file, patients, laterals; per finding the positives and their share of the known."""
    positives = {name: int(row[f"positive{at}"] or 0) if row else 0 for at, name in enumerate(vocabulary)}
    known = {name: int(row[f"known{at}"]) if row else 0 for at, name in enumerate(vocabulary)}
    return {
        "images": int(row["images"]) if row else 0,
        "files": int(row["files"]) if row else 0,
        "patients": int(row["patients"]) if row else 0,
        "laterals": laterals,
        "positives": positives,
        "prevalence": {name: positives[name] / known[name] if known[name] else 0.0 for name in vocabulary},
    }


def _pos_weight(train: Row | None, index: int) -> float:
    """`chestai.labels.balance.pos_weight` of the train split, which may have no row."""
    return pos_weight(int(train[f"positive{index}"] or 0), int(train[f"known{index}"])) if train is not None else 1.0


def _cooccurrence(gold: DataFrame, findings: int) -> tuple[tuple[int, ...], ...]:
    """How many images have both findings; on the diagonal, how many have the one."""
    places = F.transform("targets", lambda target, place: F.when(target == 1, place))
    present = gold.select(F.filter(places, lambda place: place.isNotNull()).alias("places"))
    first = present.select("places", F.explode("places").alias("a"))
    pairs = first.select("a", F.explode("places").alias("b"))
    counts = [[0] * findings for _ in range(findings)]
    for row in pairs.groupBy("a", "b").count().collect():
        counts[row["a"]][row["b"]] = int(row["count"])
    return tuple(map(tuple, counts))
