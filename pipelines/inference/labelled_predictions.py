"""A model's or a file's answers beside the truth: what every measurement starts from."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.cli.console import Screen
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model import seen_patients
from chestai.model.bundle import Bundle
from pipelines.inference.engine import infer_logits

COLUMNS = ("path", "patient_id", "source", "age_years", "sex", "view", "split", "height", "width")


@dataclass(frozen=True)
class LabelledPredictions:
    """N images with an answer.

    findings: F names, the columns of both arrays. logits: float64 (N, F). targets: float32 (N, F), 1, 0 or NaN. rows:
    N rows of `image_id` and `COLUMNS`. unread: why -> images of these splits that could not be read.
    """

    findings: tuple[str, ...]
    logits: NDArray[np.float64]
    targets: NDArray[np.float32]
    rows: pa.Table
    unread: Mapping[str, int]

    @property
    def patients(self) -> NDArray[np.str_]:
        """(N,) keys of the images' patients: an ID means a person only within its source."""
        pairs = zip(self.column("source"), self.column("patient_id"), strict=True)
        return np.array([seen_patients.patient_hash(source, patient_id) for source, patient_id in pairs], dtype=str)

    def column(self, name: str) -> list[Any]:
        """A column of `rows`."""
        return list(self.rows[name].to_pylist())

    def of(self, split: str) -> "LabelledPredictions":
        """Those of one split."""
        return self.chosen(np.flatnonzero(np.equal(np.array(self.column("split"), dtype=str), split)))

    def chosen(self, places: NDArray[np.intp]) -> "LabelledPredictions":
        """Those at the given places."""
        return LabelledPredictions(
            self.findings, self.logits[places], self.targets[places], self.rows.take(places), self.unread
        )


def load_usable_rows(lake: Lake, snapshot: Snapshot, splits: Collection[str]) -> pa.Table:
    """The images of some splits that a network can answer: `image_id`, `COLUMNS`, `targets`."""
    usable = lake.usable(snapshot, list(COLUMNS))
    return usable.filter(pc.is_in(usable["split"], pa.array(sorted(splits))))


def predict_labelled(
    bundle: Bundle, lake: Lake, snapshot: Snapshot, splits: Collection[str], batch_size: int, screen: Screen
) -> LabelledPredictions:
    """Run a bundle over every readable image of some splits."""
    rows = load_usable_rows(lake, snapshot, splits)
    scored = infer_logits(bundle, rows.select(["image_id", "path"]), batch_size, screen, "evaluate")
    return match_predictions(
        rows, snapshot, bundle.card.findings, scored.image_ids, scored.logits, Counter(scored.unread.values())
    )


def match_predictions(
    rows: pa.Table,
    snapshot: Snapshot,
    findings: Sequence[str],
    image_ids: Sequence[str],
    logits: NDArray[Any],
    unread: Mapping[str, int],
) -> LabelledPredictions:
    """Logits of some of the labelled rows beside their targets.

    Args:
        rows: `image_id`, `COLUMNS` and `targets` in the snapshot's vocabulary. A finding that it lacks has no known
            target.
        image_ids: of the logits (N, F), each one of `rows`.
    """
    place = {image_id: index for index, image_id in enumerate(rows["image_id"].to_pylist())}
    taken = rows.take(pa.array([place[image_id] for image_id in image_ids], pa.int64()))
    known = np.array(taken["targets"].to_pylist(), np.float32).reshape(len(image_ids), len(snapshot.vocabulary))
    targets = np.full((len(image_ids), len(findings)), np.nan, np.float32)
    for column, finding in enumerate(findings):
        if finding in snapshot.vocabulary:
            targets[:, column] = known[:, snapshot.vocabulary.index(finding)]
    kept = taken.select(["image_id", *COLUMNS])
    return LabelledPredictions(tuple(findings), np.asarray(logits, np.float64), targets, kept, dict(unread))
