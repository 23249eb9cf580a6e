"""Assign patients to splits: by official lists if the source has them, otherwise by a salted hash."""

import hashlib
from collections.abc import Callable

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from chestai.config.schema import Split
from chestai.errors import UserError
from pipelines.spark.python_workers import without_zip_rescan

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)
TRAIN_VAL = "train_val"  # what official lists call the images for training and validation


def hash_to_unit(salt: str, patient_id: str) -> float:
    """Return a number in [0, 1) that depends on the salt and the patient alone, so new patients move nobody."""
    digest = hashlib.sha256(f"{salt}:{patient_id}".encode()).hexdigest()
    return int(digest[:13], 16) / 2**52


def assign_split(patient_id: str, listed: str | None, split: Split) -> str:
    """Return the split of a patient.

    Args:
        listed: `train_val` or `test` if an official list names the patient's images. None without lists; then
            `split.test_fraction` of the patients go to test.
        split: `val_fraction` of the patients that are not in test go to val.
    """
    position = hash_to_unit(split.salt, patient_id)
    if listed == TEST or (listed is None and position < split.test_fraction):
        return TEST
    if listed is None:  # stretch the rest of [0, 1) to [0, 1) again
        position = (position - split.test_fraction) / (1 - split.test_fraction)
    return VAL if position < split.val_fraction else TRAIN


def assign_splits(patients: pd.Series, listed: pd.Series, split: Split) -> pd.Series:
    """Apply `assign_split` to two columns, once per patient; a missing `listed` is None or NaN."""
    pairs = list(zip(patients, listed.astype(object).where(listed.notna(), None), strict=True))
    split_of_pair = {pair: assign_split(*pair, split) for pair in set(pairs)}
    return pd.Series([split_of_pair[pair] for pair in pairs], dtype=object)


def make_split_function(split: Split) -> Callable[[str, str], Column]:
    """Return `assign_splits` as a Spark function of the names of the two columns."""

    def assign(patients: pd.Series, listed: pd.Series) -> pd.Series:
        return assign_splits(patients, listed, split)

    return F.pandas_udf(without_zip_rescan(assign), "string")  # type: ignore[call-overload]


def check_patient_splits(images: DataFrame) -> None:
    """Check that the images of each patient are in one split.

    Raises:
        UserError: Names a patient in several splits, and the splits.
    """
    patients = images.groupBy("patient_id").agg(F.sort_array(F.collect_set("split")).alias("splits"))
    leak = patients.where(F.size("splits") > 1).orderBy("patient_id").first()
    if leak is not None:
        raise UserError(
            f"patient {leak.patient_id} has images in the splits {' and '.join(leak.splits)}: "
            "a patient may be in one only; correct the source's split, or set split.by=hash"
        )
