"""The gold tables of a build in memory, as reports look at them."""

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
    """The tables of a build. images: `COLUMNS`, N rows. targets: (N, F) of the same images, NaN where not known."""

    images: pd.DataFrame
    targets: NDArray[np.float32]
    boxes: pd.DataFrame
    quarantine: pd.DataFrame

    @staticmethod
    def read(lake: Lake, snapshot: Snapshot) -> "GoldTables":
        rows = lake.labelled(snapshot, COLUMNS)
        targets = pc.list_flatten(rows["targets"]).to_numpy().astype(np.float32)
        return GoldTables(
            rows.drop_columns("targets").to_pandas(),
            targets.reshape(rows.num_rows, len(snapshot.vocabulary)),
            lake.gold(snapshot, BOXES).to_pandas(),
            lake.gold(snapshot, QUARANTINE).to_pandas(),
        )

    def frontal(self) -> "GoldTables":
        """Without lateral views, which no network learns from: as the snapshot counts findings."""
        kept = self.images["view"].ne(LATERAL).to_numpy(bool)
        return replace(self, images=self.images[kept], targets=self.targets[kept])

    def by(self, column: str, values: str) -> dict[str, NDArray[np.float64]]:
        """The known values of one column for each value of another, groups without any left out."""
        known = self.images[self.images[values].notna()]
        groups = fill_not_stated(known[column])
        return {name: known.loc[groups == name, values].to_numpy(float) for name in sort_values(groups.unique())}


def fill_not_stated(column: pd.Series) -> pd.Series:
    """A column of words with `NOT_STATED` where there is none."""
    return column.astype(object).where(column.notna(), NOT_STATED)


def sort_values(values: Iterable[str]) -> list[str]:
    """train, val, test in this order; other words by name; what is not stated last."""
    order = ["train", "val", "test"]
    known = {value: place for place, value in enumerate(order)}
    return sorted(values, key=lambda value: (value == NOT_STATED, known.get(value, len(order)), str(value)))
