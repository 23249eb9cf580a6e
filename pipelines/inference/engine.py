"""Distributed inference: paths -> bytes -> decoded pixels (CPU tasks) -> a network's work (actor pool), on Ray Data."""

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
from chestai.model.bundle import FORWARD_ENV, Bundle, Card
from pipelines.data.decode import decode_rows
from pipelines.inference.predictors import LogitsPredictor, PredictorFactory

LARGEST = 256  # rows of a block: what is read again when a task's process dies


@dataclass(frozen=True)
class PredictorResults:
    """answers: image_id -> what the work gave. unread: image_id -> why the image could not be read."""

    answers: dict[str, Any]
    unread: dict[str, str]


@dataclass(frozen=True)
class ImageLogits:
    """Answers over some images, in no particular order.

    logits: float32 (N, F) of the readable images `image_ids`. unread: image_id -> why it could not be scored.
    """

    image_ids: list[str]
    logits: NDArray[np.float32]
    unread: dict[str, str]


def infer_logits(bundle: Bundle, images: pa.Table, batch_size: int, screen: Screen, stage: str) -> ImageLogits:
    """The logits of a bundle's network over files; arguments as `answered`."""
    done = run_predictor(bundle, images, LogitsPredictor, batch_size, screen, stage)
    logits = np.array(list(done.answers.values()), np.float32).reshape(len(done.answers), len(bundle.card.findings))
    return ImageLogits(list(done.answers), logits, done.unread)


def run_predictor(
    bundle: Bundle, images: pa.Table, work: PredictorFactory, batch_size: int, screen: Screen, stage: str
) -> PredictorResults:
    """Run a work over files.

    Args:
        images: columns `image_id`, `path` (absolute path or URI) and what else the work asks for; each row is answered
            exactly once.
        batch_size: images a forward pass.
        stage: named by the progress display.
    """
    done = PredictorResults({}, {})
    read = partial(_decode_in_pieces, size=bundle.card.size, piece=batch_size)
    with screen.progress(stage, images.num_rows, "images") as progress:
        for batch in stream_predictions(bundle, blocks_of(images, batch_size), read, work, batch_size, ["image_id"]):
            for row in batch.to_pylist():
                if row["not_scored"] is None:
                    done.answers[row["image_id"]] = row["answer"]
                else:
                    done.unread[row["image_id"]] = row["not_scored"]
            progress.update(len(done.answers) + len(done.unread))
    assert len(done.answers) + len(done.unread) == images.num_rows, "an image was answered twice or not at all"
    return done


def _decode_in_pieces(rows: pa.Table, size: int, piece: int) -> Iterator[pa.Table]:
    for at in range(0, rows.num_rows, piece):
        yield decode_rows(rows.slice(at, piece), size)


def blocks_of(rows: pa.Table, batch_size: int) -> list[pa.Table]:
    """Rows in the pieces that are read by a task each: few enough that all cores have some, and at most `LARGEST`."""
    cores = int(ray.cluster_resources().get("CPU", 1))
    size = min(LARGEST, max(batch_size, rows.num_rows // (4 * cores)))
    return [rows.slice(at, size) for at in range(0, rows.num_rows, size)]


def stream_predictions(
    bundle: Bundle,
    blocks: Sequence[pa.Table],
    read: Callable[[pa.Table], pa.Table | Iterator[pa.Table]],
    work: PredictorFactory,
    batch_size: int,
    keep: Sequence[str],
    attempts: int | None = None,
    skip: bool = False,
    actors: int | None = None,
) -> Iterator[pa.Table]:
    """Read blocks and run a work over their images, both distributed; give answers as they come, in no order.

    Args:
        read: a block -> its rows, at once or in pieces, with `pixels` (size * size bytes, or null: nothing to work on)
            and `not_scored` (why, or null), and what the work asks for.
        batch_size: images a forward pass.
        keep: columns of the rows read that are wanted beside the answer.
        attempts: how often a block is read whose task's process dies, before that is an error; None: again and again.
        skip: leave blocks with an error out, whatever it is, instead of raising it.
        actors: at most so many do the work; None: one a GPU that is there now, or one a node with more than a core.

    Yields:
        Tables of `keep`, `not_scored`, and `answer`: the work's, or null without pixels.
    """
    if not blocks:
        return
    weights, gpus = ray.put(bundle.network.state_dict()), int(ray.cluster_resources().get("GPU", 0))
    there = gpus or sum(node["Alive"] and node["Resources"].get("CPU", 0) > 1 for node in ray.nodes())
    images = ray.data.from_blocks(list(blocks))  # unlike `from_arrow`, without a task a block to look at it
    images.context.max_errored_blocks = -1 if skip else 0
    results = images.map_batches(
        read,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        max_retries=-1 if attempts is None else attempts - 1,
        concurrency=_readers(),
    ).map_batches(
        _Forward,
        fn_constructor_args=(bundle.card.model_dump(), weights, work, [*keep, "not_scored"]),
        batch_size=batch_size,
        batch_format="pyarrow",
        num_cpus=2,  # unlike the reading tasks', or Ray Data would fuse the two and decode in this one actor
        num_gpus=1 if gpus else 0,
        compute=ActorPoolStrategy(min_size=1, max_size=actors or max(1, there)),  # each with all cores of its node
        runtime_env={"env_vars": FORWARD_ENV},
    )
    for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        assert isinstance(batch, pa.Table)
        yield batch


def _readers() -> int | None:
    """Reading tasks at a time; None: as many as there is room for.

    On one machine as many as it has cores: Ray may be told of more, and further tasks would only slow the network.
    """
    return len(os.sched_getaffinity(0)) if sum(node["Alive"] for node in ray.nodes()) == 1 else None


class _Forward:
    """Holds the network in an actor and does the work on each batch."""

    def __init__(
        self, card: dict[str, object], weights: ray.ObjectRef, work: PredictorFactory, keep: list[str]
    ) -> None:
        self.card, self.keep = Card.model_validate(card), keep
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        network = self.card.network()
        network.load_state_dict(ray.get(weights))
        self.work = work(self.card, network.to(device).to(memory_format=torch.channels_last).eval())

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        raw = batch["pixels"].to_pylist()
        read = [index for index, one in enumerate(raw) if one is not None]
        answers: list[Any] = [None] * len(raw)
        if read:
            size = self.card.size
            stacked = np.frombuffer(b"".join(raw[index] for index in read), np.uint8).reshape(-1, size, size)
            rows = batch.drop_columns("pixels").take(read).to_pylist()
            for index, answer in zip(read, self.work(stacked.copy(), rows), strict=True):
                answers[index] = answer
        yield batch.select(self.keep).append_column("answer", pa.array(answers, self.work.answer))
