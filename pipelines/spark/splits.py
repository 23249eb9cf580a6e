"""Which split a patient belongs to: by the official lists where there are some, else by a salted hash."""

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
TRAIN_VAL = "train_val"  # what an official list leaves for training and validation


def uniform(salt: str, patient_id: str) -> float:
    """A number in [0, 1) that depends on the salt and the patient alone, so that new patients move nobody."""
    digest = hashlib.sha256(f"{salt}:{patient_id}".encode()).hexdigest()
    return int(digest[:13], 16) / 2**52


def split_of(patient_id: str, listed: str | None, split: Split) -> str:
    """The split of a patient.

    Args:
        listed: `train_val` or `test` where an official list names the patient's images; None without lists,
            then `split.test_fraction` of the patients go to test.
        split: `val_fraction` of the patients that are not in test go to val.
    """
    place = uniform(split.salt, patient_id)
    if listed == TEST or (listed is None and place < split.test_fraction):
        return TEST
    if listed is None:  # what is left of [0, 1) is stretched to [0, 1) again
        place = (place - split.test_fraction) / (1 - split.test_fraction)
    return VAL if place < split.val_fraction else TRAIN


def splits_of(patients: pd.Series, listed: pd.Series, split: Split) -> pd.Series:
    """`split_of` for two columns, once for each patient; a missing `listed` is None or NaN."""
    pairs = list(zip(patients, listed.astype(object).where(listed.notna(), None), strict=True))
    known = {pair: split_of(*pair, split) for pair in set(pairs)}
    return pd.Series([known[pair] for pair in pairs], dtype=object)


def split_column(split: Split) -> Callable[[str, str], Column]:
    """`splits_of` as a Spark function of the names of the two columns."""

    def splits(patients: pd.Series, listed: pd.Series) -> pd.Series:
        return splits_of(patients, listed, split)

    return F.pandas_udf(without_zip_rescan(splits), "string")  # type: ignore[call-overload]


def refuse_leak(images: DataFrame) -> None:
    """Check that each patient's images are in one split.

    Raises:
        UserError: one of the patients that are not, and the splits.
    """
    places = images.groupBy("patient_id").agg(F.sort_array(F.collect_set("split")).alias("splits"))
    leak = places.where(F.size("splits") > 1).orderBy("patient_id").first()
    if leak is not None:
        raise UserError(
            f"patient {leak.patient_id} has images in the splits {' and '.join(leak.splits)}: "
            "a patient may be in one only; correct the source's split, or set split.by=hash"
        )
