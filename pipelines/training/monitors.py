"""The OOD detector and the drift reference of a model, made from its own training images."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import Bundle
from chestai.monitoring import features
from chestai.monitoring.drift import DriftReference
from chestai.monitoring.ood_detector import OodDetector
from pipelines.data.loader import stream_pieces
from pipelines.data.pixel_cache import GROUP_ROWS, PixelCache, Pixels, open_store

MAX_IMAGES = {"train": 2000, "val": 1000}
MAX_BYTES = 2**29  # of these images
MIN_IMAGES = 2  # that an OOD detector can be fitted on


def add_monitors(bundle: Bundle, lake: Lake, snapshot: Snapshot, logits: NDArray[Any], targets: NDArray[Any]) -> Bundle:
    """Adds the OOD detector and the drift reference to a calibrated bundle.

    The detector is fitted on images of train and val. The reference holds the pixel statistics of these images, the
    distances of the val images from the train images, the scores of all of val, and the views of both splits. An
    unreadable image, and a val image that the detector rejects, counts as not scored.

    Args:
        logits: (N, F) of the val images.
        targets: (N, F) of the val images, NaN where not known. An image without any known target does not count,
            because it may be unreadable.
    """
    train, val = (load_images(lake, snapshot, bundle.card.size, split) for split in ("train", "val"))
    readable = np.asarray(val.any(axis=(1, 2)))
    fitted, held_out = train[train.any(axis=(1, 2))], val[readable]
    detector = OodDetector.fit(fitted, held_out) if len(fitted) >= MIN_IMAGES else None
    scored: NDArray[np.bool_] = readable.copy()
    inputs = dict(features.of_pixels(np.concatenate([fitted, held_out])))
    if detector is not None:
        distances = detector.score(held_out)
        inputs["pixels.strangeness"] = distances
        scored[readable] = distances <= detector.limit
    rows = lake.read_usable(snapshot, ["view", "split"]).filter(pc.field("split").isin(["train", "val"]))
    views, outcomes = features.of_views(rows["view"].to_pylist()), features.of_outcomes(list(scored))
    labelled = ~np.isnan(targets).all(axis=1)
    return add_score_reference(
        replace(bundle, ood_detector=detector, drift_reference=DriftReference.of({**inputs, **views, **outcomes})),
        logits[labelled],
    )


def add_score_reference(bundle: Bundle, logits: NDArray[Any]) -> Bundle:
    """Adds the probabilities and triage scores of val's logits (N, F) to the drift reference."""
    card = bundle.card
    scores = features.of_scores(bundle.calibration.apply(logits), card.findings, bundle.triage)
    return replace(
        bundle, drift_reference=(bundle.drift_reference or DriftReference({})).updated(DriftReference.of(scores))
    )


def load_images(lake: Lake, snapshot: Snapshot, size: int, split: str) -> Pixels:
    """The first images of a split in storage order, which is random: uint8 (n, S, S), black where unreadable."""
    store = open_store(lake, snapshot, size, split, PixelCache(lake, snapshot, size).built)
    most = max(MIN_IMAGES, min(MAX_IMAGES[split], MAX_BYTES // size**2))
    rows = np.arange(min(sum(store.shards), most))
    pieces = [rows[at : at + GROUP_ROWS] for at in range(0, len(rows), GROUP_ROWS)]
    return np.concatenate(
        [np.empty((0, size, size), np.uint8), *(pixels for pixels, _ in stream_pieces(store, pieces))]
    )
