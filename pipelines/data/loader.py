"""Stream a worker's images with Ray Data in a given order, at most a few pools of them at a time."""

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

MAX_PIECES = 512  # per Ray Dataset, which takes a millisecond per piece before it yields the first


@dataclass(frozen=True)
class Batch:
    """A worker's share of a step: pixels uint8 (n, S, S), targets float32 (n, F) with NaN = not known."""

    share: StepShare
    pixels: Pixels
    targets: Targets


def stream_pieces(store: ImageStore, pieces: Sequence[Rows], workers: int = 1) -> Iterator[tuple[Pixels, Targets]]:
    """Read pieces of a split, each with one Ray task, and yield their pixels and targets in order.

    Args:
        pieces: Rows of the split, in any order.
        workers: Number of such streams that share the cluster's object store.

    Raises:
        RuntimeError: A piece has other rows than requested.
    """
    for at in range(0, len(pieces), MAX_PIECES):
        yield from _stream_dataset(store, pieces[at : at + MAX_PIECES], workers)


def _stream_dataset(store: ImageStore, pieces: Sequence[Rows], workers: int) -> Iterator[tuple[Pixels, Targets]]:
    bounds = np.cumsum([0, *map(len, pieces)])
    rows = ray.put(np.concatenate(pieces))

    def read(batch: Any) -> Any:
        piece = batch["piece"][0]
        piece_rows = ray.get(rows)[bounds[piece] : bounds[piece + 1]]
        pixels, targets = store.read(piece_rows)
        return {"row": piece_rows, "pixels": pixels, "targets": targets}

    items = [{"piece": piece} for piece in range(len(pieces))]
    # Not `ray.data.range`, which takes twelve milliseconds per block before it yields the first.
    tasks = ray.data.from_items(items, override_num_blocks=len(pieces)).map_batches(
        read, batch_size=None, num_cpus=store.task_cpus, concurrency=store.max_tasks
    )
    options = tasks.context.execution_options
    options.preserve_order = True
    memory = ray.cluster_resources().get("object_store_memory", 0) / 2 / workers
    options.resource_limits = ExecutionResources.for_limits(object_store_memory=memory)
    # Prefetch one block: tasks run ahead anyway, and the first block would wait for all the prefetched ones.
    blocks: Any = iter(tasks.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))
    for piece_rows in pieces:
        block: dict[str, Any] = next(blocks, {"row": np.arange(0)})
        while len(block["row"]) < len(piece_rows):  # Ray Data splits very large blocks
            more = next(blocks, None)
            if more is None:
                break
            block = {name: np.concatenate([block[name], more[name]]) for name in block}
        if not np.array_equal(block["row"], piece_rows):
            raise RuntimeError(f"the loader got {len(block['row'])} rows other than the {len(piece_rows)} requested")
        yield block["pixels"], block["targets"]


def stream_epoch(
    store: ImageStore, order: EpochOrder, worker: int, workers: int, first_step: int = 0
) -> Iterator[Batch]:
    """Yield a worker's share of each step of an epoch, from `first_step` on."""
    lanes = order.lanes_of(worker, workers)
    rounds = range(order.round_of(first_step) if first_step < order.steps else order.rounds, order.rounds)
    pieces = stream_pieces(store, [order.piece(index, lane) for index in rounds for lane in lanes], workers)
    for index in rounds:
        round_pieces = [next(pieces) for _ in lanes]
        for share, cuts in order.shares(index, worker, workers):
            if share.step < first_step:
                continue
            pairs = list(zip(round_pieces, cuts, strict=True))
            yield Batch(
                share,
                np.concatenate([pixels[cut] for (pixels, _), cut in pairs]),
                np.concatenate([targets[cut] for (_, targets), cut in pairs]),
            )


def stream_split(
    store: ImageStore, batch_size: int, worker: int, workers: int
) -> Iterator[tuple[Rows, Pixels, Targets]]:
    """Yield a worker's share of a split in storage order: every `workers`-th of the same batches for all workers."""
    rows = np.arange(sum(store.shards))
    batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)][worker::workers]
    for batch_rows, (pixels, targets) in zip(batches, stream_pieces(store, batches, workers), strict=True):
        yield batch_rows, pixels, targets


def prefetch(items: Iterator[T], ahead: int = 2) -> Iterator[T]:
    """Yield the same items, while a thread makes the next ones."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        pending: list[Future[Any]] = [thread.submit(next, items, end) for _ in range(ahead)]
        while (item := pending.pop(0).result()) is not end:
            pending.append(thread.submit(next, items, end))
            yield item
