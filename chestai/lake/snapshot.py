"""The dataset snapshot: one finished build of the ETL."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chestai.lake.remark import Remark


@dataclass(frozen=True)
class Snapshot:
    """A finished build, stored as the row of `gold/stats` that makes it visible.

    Attributes:
        fingerprint: Hash of inputs and settings. A later run with the same hash has nothing to do.
        vocabulary: The findings, in the order of targets.
        versions: Delta version of each gold table.
        accounting: The counts behind "rows in = rows out".
        splits: For each split, the numbers of frontal images, frontal images with a file, patients and lateral images,
            and for each finding the number and share of positives.
        pos_weight: N_neg / N_pos of each finding in the train split.
        cooccurrence: (F, F) counts over all frontal images.
        guesses: What the sources do not say and the ETL took for granted, with counts, a line each.
        remarks: What the checks of the build's sanity say about its images.
        pixel_mean, pixel_std: Of the train split's pixels in units of full scale; NaN if no image has a file.
    """

    snapshot_id: str
    built_at: datetime
    source: str
    fingerprint: str
    vocabulary: tuple[str, ...]
    versions: dict[str, int]
    accounting: dict[str, int]
    splits: dict[str, dict[str, Any]]
    pos_weight: tuple[float, ...]
    cooccurrence: tuple[tuple[int, ...], ...]
    pixel_mean: float
    pixel_std: float
    synthetic: bool
    guesses: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Returns the remarks that warn, a line each."""
        return tuple(remark.text for remark in self.remarks if remark.warns)

    def to_row(self) -> dict[str, Any]:
        """Returns the snapshot as a row of `gold/stats`."""
        as_json = {name: json.dumps(getattr(self, name)) for name in ("versions", "accounting", "splits")}
        return {**self.__dict__, **as_json, "remarks": [remark.to_row() for remark in self.remarks]}

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> "Snapshot":
        """Restores a snapshot from a row of `gold/stats`."""
        parsed = {name: json.loads(row[name]) for name in ("versions", "accounting", "splits")}
        tuples = {
            "vocabulary": tuple(row["vocabulary"]),
            "guesses": tuple(row.get("guesses") or ()),
            "remarks": tuple(map(Remark.from_row, row.get("remarks") or ())),
            "pos_weight": tuple(row["pos_weight"]),
            "cooccurrence": tuple(tuple(counts) for counts in row["cooccurrence"]),
        }
        return Snapshot(**{**row, **parsed, **tuples})
