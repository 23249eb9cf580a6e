"""Distributed inference on Ray Data: paths -> bytes -> pixels (CPU tasks) -> a predictor's outputs (actor pool)."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from chestai.cli.console import Screen
from chestai.model.bundle import FORWARD_ENV, Bundle, StoredNetwork
from chestai.model.card import Card
from pipelines.data.decode import decode_table
from pipelines.inference.predictors import LogitsPredictor, PredictorFactory, predict_batch

MAX_BLOCK_ROWS = 256  # a block is read again as a whole when its task's process dies

Read = Callable[[pa.Table], pa.Table | Iterator[pa.Table]]


@dataclass(frozen=True)
class PredictorResults:
    """outputs: image_id -> the predictor's output. unread: image_id -> why the image could not be read."""

    outputs: dict[str, Any]
    unread: dict[str, str]


@dataclass(frozen=True)
class ImageLogits:
    """The logits of some images, in no particular order.

    logits: float32 (N, F) of the readable images `image_ids`. unread: image_id -> why it could not be scored.
    """

    image_ids: list[str]
    logits: NDArray[np.float32]
    unread: dict[str, str]


@dataclass(frozen=True)
class Reading:
    """How blocks of rows become rows with pixels, in CPU tasks.

    Attributes:
        read: Turns a block into its rows, at once or in pieces, with `pixels` (size * size bytes, or null) and
            `not_scored` (the reason, or null), and the columns that the predictor needs.
        attempts: How often a block is read if its task's process dies; None: without limit.
        skip_errors: Leaves out blocks that fail, instead of raising the error.
    """

    read: Read
    attempts: int | None = None
    skip_errors: bool = False


def infer_logits(bundle: Bundle, images: pa.Table, batch_size: int, screen: Screen, stage: str) -> ImageLogits:
    """Computes the logits of a bundle's network over files; arguments as of `run_predictor`."""
    results = run_predictor(bundle, images, LogitsPredictor, batch_size, screen, stage)
    outputs = results.outputs
    logits = np.array(list(outputs.values()), np.float32).reshape(len(outputs), len(bundle.card.findings))
    return ImageLogits(list(outputs), logits, results.unread)


def run_predictor(
    bundle: Bundle, images: pa.Table, predictor: PredictorFactory, batch_size: int, screen: Screen, stage: str
) -> PredictorResults:
    """Runs a predictor over files.

    Args:
        images: Columns `image_id`, `path` (absolute or a URI) and what the predictor needs; each row is predicted once.
        batch_size: Images of a forward pass.
        stage: Name shown by the progress display.
    """
    results = PredictorResults({}, {})
    reading = Reading(partial(_decode_in_pieces, size=bundle.card.size, piece=batch_size))
    blocks = split_into_blocks(images, batch_size)
    with screen.progress(stage, images.num_rows, "images") as progress:
        for batch in stream_predictions(bundle, blocks, reading, predictor, batch_size, ["image_id", "not_scored"]):
            for row in batch.to_pylist():
                if row["not_scored"] is None:
                    results.outputs[row["image_id"]] = row["output"]
                else:
                    results.unread[row["image_id"]] = row["not_scored"]
            progress.update(len(results.outputs) + len(results.unread))
    assert len(results.outputs) + len(results.unread) == images.num_rows, "an image is missing or was predicted twice"
    return results


def _decode_in_pieces(rows: pa.Table, size: int, piece: int) -> Iterator[pa.Table]:
    for start in range(0, rows.num_rows, piece):
        yield decode_table(rows.slice(start, piece), size)


def split_into_blocks(rows: pa.Table, batch_size: int) -> list[pa.Table]:
    """Splits rows into blocks, one for each reading task: enough for all cores, at most `MAX_BLOCK_ROWS` rows each."""
    cores = int(ray.cluster_resources().get("CPU", 1))
    size = min(MAX_BLOCK_ROWS, max(batch_size, rows.num_rows // (4 * cores)))
    return [rows.slice(start, size) for start in range(0, rows.num_rows, size)]


def stream_predictions(
    bundle: Bundle,
    blocks: Sequence[pa.Table],
    reading: Reading,
    predictor: PredictorFactory,
    batch_size: int,
    keep: Sequence[str],
    actors: int | None = None,
) -> Iterator[pa.Table]:
    """Reads blocks and predicts their images, both distributed; yields results as they come, in no order.

    Args:
        batch_size: Images of a forward pass.
        keep: Columns of the read rows that are passed on, `not_scored` among them.
        actors: Maximum number of actors; None: one per GPU that is up, or one per node with more than one core.

    Yields:
        Tables of `keep` and `output`: the predictor's, or null without pixels.
    """
    if not blocks:
        return
    weights, gpus = ray.put(dict(bundle.weights)), int(ray.cluster_resources().get("GPU", 0))
    hosts = gpus or sum(node["Alive"] and node["Resources"].get("CPU", 0) > 1 for node in ray.nodes())
    images = ray.data.from_blocks(list(blocks))  # `from_arrow` would start a task per block to look at it
    images.context.max_errored_blocks = -1 if reading.skip_errors else 0
    results = images.map_batches(
        reading.read,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        max_retries=-1 if reading.attempts is None else reading.attempts - 1,
        concurrency=_reading_tasks(),
    ).map_batches(
        PredictorActor,
        fn_constructor_args=(bundle.card.model_dump(), weights, predictor, list(keep)),
        batch_size=batch_size,
        batch_format="pyarrow",
        num_cpus=2,  # differs from the reading tasks', or Ray Data would fuse both and decode in this one actor
        num_gpus=1 if gpus else 0,
        compute=ActorPoolStrategy(min_size=1, max_size=actors or max(1, hosts)),  # each uses all cores of its node
        runtime_env={"env_vars": FORWARD_ENV},
    )
    for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(batch, pa.Table)
        yield batch


def _reading_tasks() -> int | None:
    """How many reading tasks run at a time; None: as many as Ray has room for.

    On one machine, as many as it has cores: Ray may have been given more, and further tasks only slow the network.
    """
    return len(os.sched_getaffinity(0)) if sum(node["Alive"] for node in ray.nodes()) == 1 else None


class PredictorActor:
    """Holds the network in an actor and predicts each batch."""

    def __init__(
        self, card: dict[str, object], weights: ray.ObjectRef, predictor: PredictorFactory, keep: list[str]
    ) -> None:
        self.card, self.keep = Card.model_validate(card), keep
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.predictor = predictor(StoredNetwork(self.card, ray.get(weights)).to(device))

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        yield predict_batch(self.predictor, self.card.size, batch, self.keep)
