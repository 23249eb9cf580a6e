"""What a model needs to watch what it is given: input gate and drift reference, from its own training images."""

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
from pipelines.data.loader import stream
from pipelines.data.pixel_cache import GROUP_ROWS, PixelCache, Pixels, store_of

MOST = {"train": 2000, "val": 1000}  # images that are looked at
MOST_BYTES = 2**29  # of them
FEWEST = 2  # images that an input gate can be fitted on


def with_monitors(
    bundle: Bundle, lake: Lake, snapshot: Snapshot, logits: NDArray[Any], targets: NDArray[Any]
) -> Bundle:
    """A calibrated bundle with its input gate and drift reference.

    The gate is fitted on images of train and val. The reference is of these images' pixels, of the distances of val's
    from train's, of the scores of all of val, and of the views of both splits. An image that could not be read is not
    scored, nor is one of val that the gate refuses.

    Args:
        logits: (N, F) of the val images; targets: (N, F), NaN where not known. An image of which no target is known may
            be one that could not be read, and does not count.
    """
    train, val = (images(lake, snapshot, bundle.card.size, split) for split in ("train", "val"))
    readable = np.asarray(val.any(axis=(1, 2)))
    learnt, held_out = train[train.any(axis=(1, 2))], val[readable]
    intake = OodDetector.fit(learnt, held_out) if len(learnt) >= FEWEST else None
    scored: NDArray[np.bool_] = readable.copy()
    inputs = dict(features.of_pixels(np.concatenate([learnt, held_out])))
    if intake is not None:
        distances = intake.score(held_out)
        inputs["pixels.strangeness"] = distances
        scored[readable] = distances <= intake.limit
    rows = lake.usable(snapshot, ["view", "split"]).filter(pc.field("split").isin(["train", "val"]))
    views, outcomes = features.of_views(rows["view"].to_pylist()), features.of_outcomes(list(scored))
    known = ~np.isnan(targets).all(axis=1)
    return with_scores(
        replace(bundle, intake=intake, drift=DriftReference.of({**inputs, **views, **outcomes})), logits[known]
    )


def with_scores(bundle: Bundle, logits: NDArray[Any]) -> Bundle:
    """The bundle with what its calibration and triage rule make of val's logits (N, F) in its drift reference."""
    card = bundle.card
    scores = features.of_scores(bundle.calibration.apply(logits), card.findings, bundle.triage)
    return replace(bundle, drift=(bundle.drift or DriftReference({})).updated(DriftReference.of(scores)))


def images(lake: Lake, snapshot: Snapshot, size: int, split: str) -> Pixels:
    """The first images of a split in storage order, which is random: `uint8` (n, S, S), black where unreadable."""
    store = store_of(lake, snapshot, size, split, PixelCache(lake, snapshot, size).built)
    most = max(FEWEST, min(MOST[split], MOST_BYTES // size**2))
    rows = np.arange(min(sum(store.shards), most))
    pieces = [rows[at : at + GROUP_ROWS] for at in range(0, len(rows), GROUP_ROWS)]
    return np.concatenate([np.empty((0, size, size), np.uint8), *(pixels for pixels, _ in stream(store, pieces))])
