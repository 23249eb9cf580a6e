"""A model's logits next to the labels of the same images: the input of every measurement."""

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
    """Predictions for N images and F findings.

    findings: names of the columns of both arrays. logits: float64 (N, F). targets: float32 (N, F), 1, 0 or NaN.
    rows: `image_id` and `COLUMNS` of the N images. unread: reason -> number of images that could not be read.
    """

    findings: tuple[str, ...]
    logits: NDArray[np.float64]
    targets: NDArray[np.float32]
    rows: pa.Table
    unread: Mapping[str, int]

    @property
    def patients(self) -> NDArray[np.str_]:
        """(N,) patient keys, see `find_patients`."""
        return find_patients(self.rows)

    def column(self, name: str) -> list[Any]:
        """A column of `rows` as Python values."""
        return list(self.rows[name].to_pylist())

    def select_split(self, split: str) -> "LabelledPredictions":
        """Only the images of one split."""
        return self.take(np.flatnonzero(np.equal(np.array(self.column("split"), dtype=str), split)))

    def take(self, indices: NDArray[np.intp]) -> "LabelledPredictions":
        """Only the images at these indices, in this order."""
        return LabelledPredictions(
            self.findings, self.logits[indices], self.targets[indices], self.rows.take(indices), self.unread
        )


def find_patients(rows: pa.Table) -> NDArray[np.str_]:
    """(N,) patient keys of rows with `source` and `patient_id`: an ID identifies a person only within its source."""
    pairs = zip(rows["source"].to_pylist(), rows["patient_id"].to_pylist(), strict=True)
    return np.array([seen_patients.patient_hash(source, patient_id) for source, patient_id in pairs], dtype=str)


def load_usable_rows(lake: Lake, snapshot: Snapshot, splits: Collection[str]) -> pa.Table:
    """The images of some splits that a network can predict: `image_id`, `COLUMNS`, `targets`."""
    usable = lake.read_usable(snapshot, list(COLUMNS))
    return usable.filter(pc.is_in(usable["split"], pa.array(sorted(splits))))


def predict_labelled(
    bundle: Bundle, lake: Lake, snapshot: Snapshot, splits: Collection[str], batch_size: int, screen: Screen
) -> LabelledPredictions:
    """Run a bundle over every readable image of some splits."""
    rows = load_usable_rows(lake, snapshot, splits)
    results = infer_logits(bundle, rows.select(["image_id", "path"]), batch_size, screen, "evaluate")
    unread = Counter(results.unread.values())
    return match_predictions(rows, snapshot, bundle.card.findings, results.image_ids, results.logits, unread)


def match_predictions(
    rows: pa.Table,
    snapshot: Snapshot,
    findings: Sequence[str],
    image_ids: Sequence[str],
    logits: NDArray[Any],
    unread: Mapping[str, int],
) -> LabelledPredictions:
    """Match logits with the labels of their images.

    Args:
        rows: `image_id`, `COLUMNS` and `targets` in the order of the snapshot's vocabulary. A finding outside that
            vocabulary gets NaN targets.
        image_ids: the images of the logits (N, F); each must be in `rows`.
    """
    index_of = {image_id: index for index, image_id in enumerate(rows["image_id"].to_pylist())}
    matched = rows.take(pa.array([index_of[image_id] for image_id in image_ids], pa.int64()))
    labels = np.array(matched["targets"].to_pylist(), np.float32).reshape(len(image_ids), len(snapshot.vocabulary))
    targets = np.full((len(image_ids), len(findings)), np.nan, np.float32)
    for column, finding in enumerate(findings):
        if finding in snapshot.vocabulary:
            targets[:, column] = labels[:, snapshot.vocabulary.index(finding)]
    kept = matched.select(["image_id", *COLUMNS])
    return LabelledPredictions(tuple(findings), np.asarray(logits, np.float64), targets, kept, dict(unread))


def align(ours: LabelledPredictions, theirs: LabelledPredictions) -> tuple[LabelledPredictions, LabelledPredictions]:
    """Both models' predictions of the images that both have, in the order of the first."""
    index_of = {image_id: index for index, image_id in enumerate(theirs.column("image_id"))}
    ours = ours.take(np.flatnonzero([image_id in index_of for image_id in ours.column("image_id")]))
    rows: NDArray[np.intp] = np.array([index_of[image_id] for image_id in ours.column("image_id")], np.intp)
    return ours, theirs.take(rows)
