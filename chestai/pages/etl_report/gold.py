"""The gold tables of a build, loaded for reports."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.labels.demographics import LATERAL
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, QUARANTINE
from chestai.lake.snapshot import Snapshot

COLUMNS = (
    "image_id",
    "path",
    "source",
    "patient_id",
    "age_years",
    "sex",
    "view",
    "height",
    "width",
    "bytes",
    "pixel_mean",
    "pixel_std",
    "split",
)
NOT_STATED = "not stated"


@dataclass(frozen=True)
class GoldTables:
    """The tables of a build. images: `COLUMNS`, N rows. targets: (N, F) of the same images, NaN if unknown."""

    images: pd.DataFrame
    targets: NDArray[np.float32]
    boxes: pd.DataFrame
    quarantine: pd.DataFrame

    @staticmethod
    def read(lake: Lake, snapshot: Snapshot) -> "GoldTables":
        """Read the tables of a snapshot."""
        rows = lake.read_labelled(snapshot, COLUMNS)
        targets = pc.list_flatten(rows["targets"]).to_numpy().astype(np.float32)
        return GoldTables(
            rows.drop_columns("targets").to_pandas(),
            targets.reshape(rows.num_rows, len(snapshot.vocabulary)),
            lake.read_gold(snapshot, BOXES).to_pandas(),
            lake.read_gold(snapshot, QUARANTINE).to_pandas(),
        )

    def select_frontal(self) -> "GoldTables":
        """Without lateral views, which no network is trained on; the snapshot counts findings in the same way."""
        kept = self.images["view"].ne(LATERAL).to_numpy(bool)
        return replace(self, images=self.images[kept], targets=self.targets[kept])

    def group_values(self, column: str, values: str) -> dict[str, NDArray[np.float64]]:
        """Group the known values of column `values` by column `column`, without empty groups."""
        known = self.images[self.images[values].notna()]
        groups = fill_not_stated(known[column])
        return {name: known.loc[groups == name, values].to_numpy(float) for name in sort_values(groups.unique())}


def fill_not_stated(column: pd.Series) -> pd.Series:
    """A column of words, with `NOT_STATED` for missing ones."""
    return column.astype(object).where(column.notna(), NOT_STATED)


def sort_values(values: Iterable[str]) -> list[str]:
    """Sort values: train, val and test first, other words by name, `NOT_STATED` last."""
    order = ["train", "val", "test"]
    position = {value: index for index, value in enumerate(order)}
    return sorted(values, key=lambda value: (value == NOT_STATED, position.get(value, len(order)), str(value)))
