"""The ID of a build's content."""

import hashlib
import json
import random
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.spark.dataset_stats import compute_content_id

COLUMNS = "image_id string, sha256 string, split string, targets array<float>, uncertain array<string>"
VOCABULARY = ("Edema", "Effusion", "Mass")

Row = dict[str, Any]


def make_gold(count: int, seed: int) -> list[Row]:
    """Rows without uncertain labels: positive, negative and unknown, with and without a file."""
    chance = random.Random(seed)
    return [
        {
            "image_id": f"image{number}",
            "sha256": chance.choice([None, f"{chance.getrandbits(256):064x}"]),
            "split": chance.choice(["train", "val", "test"]),
            "targets": [chance.choice([1.0, 0.0, None]) for _ in VOCABULARY],
            "uncertain": [],
        }
        for number in range(count)
    ]


def content_id(spark: SparkSession, rows: list[Row]) -> str:
    return compute_content_id(spark.createDataFrame(rows, COLUMNS), VOCABULARY, 2)  # type: ignore[type-var]


def old_content_id(rows: list[Row]) -> str:
    """The ID from before labels had the column `uncertain`."""
    buckets: dict[str, list[str]] = {}
    for row in rows:
        targets = ",".join("null" if target is None else f"{target:.1f}" for target in row["targets"])
        line = "|".join([row["image_id"], row["sha256"] or "no file", row["split"], targets])
        digest = hashlib.sha256(line.encode()).hexdigest()
        buckets.setdefault(digest[:2], []).append(digest)
    digests = [[name, hashlib.sha256("".join(sorted(own)).encode()).hexdigest()] for name, own in buckets.items()]
    return hashlib.sha256(json.dumps([2, VOCABULARY, sorted(digests)]).encode()).hexdigest()[:12]


@pytest.mark.parametrize("count", [0, 1, 400])
def test_build_without_uncertain_labels_keeps_its_old_id(spark_session: SparkSession, count: int) -> None:
    rows = make_gold(count, seed=count)
    assert content_id(spark_session, rows) == content_id(spark_session, rows[::-1]) == old_content_id(rows)


def test_content_id_depends_on_uncertain_labels_whatever_the_targets(spark_session: SparkSession) -> None:
    rows = make_gold(6, seed=1)
    marked = [[], ["Edema"], ["Mass"], ["Edema", "Mass"]]
    ids = [content_id(spark_session, [{**rows[0], "uncertain": findings}, *rows[1:]]) for findings in marked]
    elsewhere = content_id(spark_session, [rows[0], {**rows[1], "uncertain": ["Edema"]}, *rows[2:]])
    assert len({*ids, elsewhere}) == 5
    assert content_id(spark_session, [{**rows[0], "uncertain": ["Mass", "Edema"]}, *rows[1:]]) == ids[3], "a set"
