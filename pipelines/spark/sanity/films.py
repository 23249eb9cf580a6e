"""What the checks look at: the facts of all gold images with a file, in the driver, some 0.5 KB an image."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from chestai.imaging.near_duplicates import Vectors, standardise
from chestai.imaging.thumbnail import SIDE

NUMBERS = ("bytes", "height", "width", "channels", "grey_low", "grey_high", "common_grey")


@dataclass(frozen=True)
class Films:
    """N images.

    Attributes:
        facts: image_id, patient_id, source, split, view, folder and `NUMBERS`; N rows, sorted by image_id.
        thumbnails: (N, `SIDE` * `SIDE`) uint8.
        targets: (N, F) float32, NaN if unknown.
    """

    facts: pd.DataFrame
    thumbnails: NDArray[np.uint8]
    targets: NDArray[np.float32]

    @staticmethod
    def gather(gold: DataFrame, findings: int) -> "Films":
        """Gather the gold images that have a file.

        Args:
            gold: From `reconcile`.
            findings: Number of findings in its targets.
        """
        folder = F.regexp_replace("path", "/[^/]*$", "").alias("folder")
        names = ("image_id", "patient_id", "source", "split", "view", *NUMBERS, "thumbnail", "targets")
        rows = gold.where("thumbnail is not null").select(*names, folder).toPandas()
        rows = rows.sort_values("image_id", ignore_index=True)
        thumbnails = np.frombuffer(b"".join(rows.pop("thumbnail")), np.uint8).reshape(len(rows), SIDE * SIDE)
        targets = np.array([list(row) for row in rows.pop("targets")], np.float32).reshape(len(rows), findings)
        return Films(rows, thumbnails, targets)

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def vectors(self) -> Vectors:
        """The thumbnails, standardised: (N, `SIDE` * `SIDE`) float32."""
        return standardise(self.thumbnails)

    def select(self, chosen: NDArray[np.bool_]) -> "Films":
        """Return some of the images."""
        return Films(self.facts[chosen].reset_index(drop=True), self.thumbnails[chosen], self.targets[chosen])

    def fold_patients(self, folds: int) -> NDArray[np.intp]:
        """Assign each image to one of `folds` parts, all images of a patient to the same one: (N,) from 0."""
        hashes = [zlib.crc32(patient.encode()) % folds for patient in self.facts["patient_id"]]
        return np.array(hashes, np.intp)

    def name(self, rows: NDArray[np.intp]) -> Sequence[str]:
        """Return the IDs of the images at some positions."""
        return self.facts["image_id"].to_numpy()[rows].tolist()
