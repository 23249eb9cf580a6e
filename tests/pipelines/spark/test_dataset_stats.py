"""The name that a build's content gives it."""

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


def gold(count: int, seed: int) -> list[Row]:
    """Rows of which nothing is uncertain: known, unknown and absent, with and without a file."""
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


def named(spark: SparkSession, rows: list[Row]) -> str:
    return compute_content_id(spark.createDataFrame(rows, COLUMNS), VOCABULARY, 2)  # type: ignore[type-var]


def former_id(rows: list[Row]) -> str:
    """The name as it was before labels told what is uncertain."""
    buckets: dict[str, list[str]] = {}
    for row in rows:
        targets = ",".join("null" if target is None else f"{target:.1f}" for target in row["targets"])
        line = "|".join([row["image_id"], row["sha256"] or "no file", row["split"], targets])
        digest = hashlib.sha256(line.encode()).hexdigest()
        buckets.setdefault(digest[:2], []).append(digest)
    digests = [[name, hashlib.sha256("".join(sorted(own)).encode()).hexdigest()] for name, own in buckets.items()]
    return hashlib.sha256(json.dumps([2, VOCABULARY, sorted(digests)]).encode()).hexdigest()[:12]


@pytest.mark.parametrize("count", [0, 1, 400])
def test_a_build_without_uncertain_labels_keeps_its_former_name(spark_session: SparkSession, count: int) -> None:
    rows = gold(count, seed=count)
    assert named(spark_session, rows) == named(spark_session, rows[::-1]) == former_id(rows)


def test_what_is_uncertain_is_content_whatever_the_target_says(spark_session: SparkSession) -> None:
    rows = gold(6, seed=1)
    marked = [[], ["Edema"], ["Mass"], ["Edema", "Mass"]]
    names = [named(spark_session, [{**rows[0], "uncertain": findings}, *rows[1:]]) for findings in marked]
    elsewhere = named(spark_session, [rows[0], {**rows[1], "uncertain": ["Edema"]}, *rows[2:]])
    assert len({*names, elsewhere}) == 5
    assert named(spark_session, [{**rows[0], "uncertain": ["Mass", "Edema"]}, *rows[1:]]) == names[3], "a set"
