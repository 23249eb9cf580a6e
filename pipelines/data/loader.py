"""Ray Data streams a worker's images, in the order that it was told, never more than a few pools of them at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import ray
from ray.data import ExecutionResources

from pipelines.data.pixel_cache import ImageStore, Pixels, Targets
from pipelines.data.sampler import EpochOrder, Rows, StepShare

T = TypeVar("T")

PIECES = 512  # of a Ray Dataset: it takes a millisecond a piece before the first one comes


@dataclass(frozen=True)
class Batch:
    """A worker's share of a step: pixels uint8 (n, S, S), targets float32 (n, F) with NaN = not known."""

    share: StepShare
    pixels: Pixels
    targets: Targets


def stream(store: ImageStore, pieces: Sequence[Rows], workers: int = 1) -> Iterator[tuple[Pixels, Targets]]:
    """Read pieces of a split, each by one Ray task, and give them one after another.

    Args:
        pieces: rows of the split, in any order.
        workers: how many such streams share the cluster's object store.

    Raises:
        RuntimeError: a piece came with other rows than it was asked for.
    """
    for at in range(0, len(pieces), PIECES):
        yield from _stream(store, pieces[at : at + PIECES], workers)


def _stream(store: ImageStore, pieces: Sequence[Rows], workers: int) -> Iterator[tuple[Pixels, Targets]]:
    bounds = np.cumsum([0, *map(len, pieces)])
    rows = ray.put(np.concatenate(pieces))

    def read(batch: Any) -> Any:
        number = batch["piece"][0]
        wanted = ray.get(rows)[bounds[number] : bounds[number + 1]]
        pixels, targets = store.read(wanted)
        return {"row": wanted, "pixels": pixels, "targets": targets}

    numbers = [{"piece": number} for number in range(len(pieces))]
    # Not `ray.data.range`, which takes twelve milliseconds a block before the first one comes.
    tasks = ray.data.from_items(numbers, override_num_blocks=len(pieces)).map_batches(
        read, batch_size=None, num_cpus=store.cpus, concurrency=store.at_once
    )
    options = tasks.context.execution_options
    options.preserve_order = True
    memory = ray.cluster_resources().get("object_store_memory", 0) / 2 / workers
    options.resource_limits = ExecutionResources.for_limits(object_store_memory=memory)
    # One ahead: the tasks run on by themselves, and the first block would wait for all that are to be ahead of it.
    blocks: Any = iter(tasks.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))
    for wanted in pieces:
        block: dict[str, Any] = next(blocks, {"row": np.arange(0)})
        while len(block["row"]) < len(wanted):  # Ray Data splits very large blocks
            more = next(blocks, None)
            if more is None:
                break
            block = {name: np.concatenate([block[name], more[name]]) for name in block}
        if not np.array_equal(block["row"], wanted):
            raise RuntimeError(f"the feed gave {len(block['row'])} rows other than the {len(wanted)} asked for")
        yield block["pixels"], block["targets"]


def epoch(store: ImageStore, order: EpochOrder, worker: int, workers: int, first_step: int = 0) -> Iterator[Batch]:
    """A worker's share of each step of an epoch, from a step on."""
    per = order.lanes // workers
    lanes = range(worker * per, (worker + 1) * per)
    turns = range(order.round_of(first_step) if first_step < order.steps else order.rounds, order.rounds)
    pieces = stream(store, [order.piece(turn, lane) for turn in turns for lane in lanes], workers)
    for turn in turns:
        round_pieces = [next(pieces) for _ in lanes]
        for share, cuts in order.shares(turn, lanes):
            if share.step < first_step:
                continue
            pairs = list(zip(round_pieces, cuts, strict=True))
            yield Batch(
                share,
                np.concatenate([pixels[cut] for (pixels, _), cut in pairs]),
                np.concatenate([targets[cut] for (_, targets), cut in pairs]),
            )


def whole(store: ImageStore, batch_size: int, worker: int, workers: int) -> Iterator[tuple[Rows, Pixels, Targets]]:
    """A worker's share of a split in storage order: every `workers`-th batch of what is cut alike for all."""
    rows = np.arange(sum(store.shards))
    batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)][worker::workers]
    for mine, (pixels, targets) in zip(batches, stream(store, batches, workers), strict=True):
        yield mine, pixels, targets


def in_background(items: Iterator[T], ahead: int = 2) -> Iterator[T]:
    """The same items, the next ones made by a thread while one is being used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming: list[Future[Any]] = [thread.submit(next, items, end) for _ in range(ahead)]
        while (item := coming.pop(0).result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item
