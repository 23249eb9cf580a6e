"""Splits by hash: stable, independent of other patients, and of the right size."""

from collections import Counter

import pandas as pd
import pytest

from chestai.config.schema import Split
from pipelines.spark.splits import assign_split, assign_splits, hash_to_unit

SPLIT = Split(by="auto", val_fraction=0.15, test_fraction=0.2, salt="chestai")
PATIENTS = [f"{number:08d}" for number in range(5000)]


def test_hash_never_changes() -> None:
    assert hash_to_unit("chestai", "00000001") == int("5a61835a1676c", 16) / 2**52


def test_fractions_are_those_of_the_config_without_lists() -> None:
    counts = Counter(assign_split(patient, None, SPLIT) for patient in PATIENTS)
    assert abs(counts["test"] / 5000 - 0.2) < 0.02
    assert abs(counts["val"] / (counts["val"] + counts["train"]) - 0.15) < 0.02


def test_only_validation_is_split_off_with_lists() -> None:
    assert {assign_split(patient, "test", SPLIT) for patient in PATIENTS} == {"test"}
    counts = Counter(assign_split(patient, "train_val", SPLIT) for patient in PATIENTS)
    assert set(counts) == {"train", "val"} and abs(counts["val"] / 5000 - 0.15) < 0.02


def test_salt_moves_patients() -> None:
    other = SPLIT.model_copy(update={"salt": "other"})
    moved = sum(assign_split(patient, None, SPLIT) != assign_split(patient, None, other) for patient in PATIENTS)
    assert moved > 1000


@pytest.mark.parametrize("kind", ["str", "object"])
def test_columns_are_split_like_single_patients(kind: str) -> None:
    listed = ["test", "train_val", None] * 1000
    found = assign_splits(pd.Series(PATIENTS[:3000]), pd.Series(listed, dtype=kind), SPLIT)
    assert found.tolist() == [assign_split(*pair, SPLIT) for pair in zip(PATIENTS[:3000], listed, strict=True)]
