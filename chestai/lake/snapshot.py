"""The dataset snapshot: a finished build of the ETL."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Snapshot:
    """A finished build: the row of `gold/stats` that makes it visible.

    Attributes:
        fingerprint: Of the inputs and settings, by which a later run finds that nothing changed.
        vocabulary: The findings, in the order of all targets.
        versions: Delta version of each gold table.
        accounting: The counts behind "rows in = rows out".
        splits: Per split, the numbers of frontal images, of those with a file, of patients and of lateral images, and
            per finding the positives and their share.
        pos_weight: N_neg / N_pos per finding on the train split.
        cooccurrence: (F, F) counts over all frontal images.
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

    def row(self) -> dict[str, Any]:
        """The snapshot as a row of `gold/stats`."""
        as_json = {name: json.dumps(getattr(self, name)) for name in ("versions", "accounting", "splits")}
        return {**self.__dict__, **as_json}

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> "Snapshot":
        """Restores a snapshot from its row."""
        parsed = {name: json.loads(row[name]) for name in ("versions", "accounting", "splits")}
        tuples = {
            "vocabulary": tuple(row["vocabulary"]),
            "pos_weight": tuple(row["pos_weight"]),
            "cooccurrence": tuple(tuple(counts) for counts in row["cooccurrence"]),
        }
        return Snapshot(**{**row, **parsed, **tuples})
