"""Inference over files that may crash the process that reads them, or over a pixel cache."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from chestai.lake.lake import Lake
from pipelines.data.decode import read_cached_shard, read_files
from pipelines.data.decoded_file import CRASHES_READER
from pipelines.data.digest_set import Digests
from pipelines.data.pixel_cache import PixelCache, read_split_rows
from pipelines.inference.engine import Reading, split_into_blocks, stream_predictions
from pipelines.inference.predictors import KEEP, PREDICTED, BatchInference, ScoringPredictor

SUSPECTS_AT_ONCE = 64  # files that are tried alone at the same time
GIVE_UP_AFTER = 100  # readers that all crash: the cause is not in the files
STOP_AFTER = 1000  # readers that all survive: the cause is not in the files either


def predict_files(inference: BatchInference, rows: pa.Table, scored: Digests) -> Iterator[pa.Table]:
    """Predicts files; yields rows of `PREDICTED`.

    A file that crashes its reader takes its block with it. The rows that are left are then read alone: a file that
    crashes its reader again gets the reason `CRASHES_READER`. The rest is read once more, and any error is then raised.

    Args:
        rows: `row` (ascending), `path`, `bytes`; each is predicted exactly once.
        scored: Contents that need no prediction.

    Raises:
        RuntimeError: Every reader crashes.
    """
    detector = ray.put(inference.bundle.ood_detector if inference.gate else None)
    read = partial(read_files, size=inference.bundle.card.size, scored=ray.put(scored), detector=detector)
    numbers = rows["row"].to_numpy()
    left = np.ones(rows.num_rows, bool)

    def predict(some: pa.Table, attempts: int, skip_errors: bool) -> Iterator[pa.Table]:
        reading = Reading(read, attempts, skip_errors)
        for batch in _stream(inference, split_into_blocks(some, inference.batch_size), reading):
            index = np.searchsorted(numbers, batch["row"].to_numpy())
            fresh = left[index]
            left[index] = False
            yield batch.filter(pa.array(fresh))

    yield from predict(rows, attempts=2, skip_errors=True)
    if not left.any():
        return
    crashing = find_crashing_files(rows.filter(pa.array(left)), read)
    left[np.searchsorted(numbers, np.array(crashing, np.int64))] = False
    yield make_crash_rows(crashing)
    yield from predict(rows.filter(pa.array(left)), attempts=4, skip_errors=False)


def find_crashing_files(rows: pa.Table, read: partial[Iterator[pa.Table]]) -> list[int]:
    """The `row` of each file whose reader crashes twice when it reads nothing else.

    Stops early after `STOP_AFTER` files without a crash.

    Raises:
        RuntimeError: The first `GIVE_UP_AFTER` readers all crashed.
    """
    reader = ray.remote(num_cpus=1, max_retries=1)(_read_fully)
    running: dict[ray.ObjectRef, int] = {}
    crashing: list[int] = []
    finished = 0
    for index in range(rows.num_rows + 1):
        if finished >= STOP_AFTER and not crashing:
            break
        if index < rows.num_rows:
            running[reader.remote(read, rows.slice(index, 1))] = rows["row"][index].as_py()
        while running and (index == rows.num_rows or len(running) >= SUSPECTS_AT_ONCE):
            (ref,), _ = ray.wait(list(running))
            row, finished = running.pop(ref), finished + 1
            try:
                ray.get(ref)
            except (WorkerCrashedError, OutOfMemoryError, NodeDiedError):
                crashing.append(row)
            if len(crashing) == finished >= GIVE_UP_AFTER:
                raise RuntimeError(f"the readers of {finished} files all died: Ray's logs say of what")
    return crashing


def _read_fully(read: partial[Iterator[pa.Table]], rows: pa.Table) -> bool:
    return all(piece.num_rows for piece in read(rows))


def make_crash_rows(rows: Sequence[int]) -> pa.Table:
    """Rows of `PREDICTED` for files that crash their readers."""
    detail = "the process that reads it dies"
    found = [{"row": row, "not_scored": CRASHES_READER, "detail": detail} for row in rows]
    return pa.Table.from_pylist(found, schema=PREDICTED)


def predict_cached(inference: BatchInference, cache: PixelCache, rows: pa.Table) -> Iterator[pa.Table]:
    """Predicts images from the pixel cache of a snapshot, without decoding; yields rows of `PREDICTED`.

    The cache holds the contents that the snapshot states.

    Args:
        rows: `row`, `image_id`, `sha256` of usable images of the snapshot; each is predicted exactly once.
    """
    yield from _stream(inference, split_by_cache_file(cache.lake, cache, rows), Reading(read_cached_shard))


def split_by_cache_file(lake: Lake, cache: PixelCache, rows: pa.Table) -> list[pa.Table]:
    """Splits rows into blocks that lie in one file of the cache each: `row`, `image_id`, `sha256`, `uri`."""
    blocks = []
    for split in ("train", "val", "test"):
        image_ids = read_split_rows(lake, cache.snapshot, split)["image_id"]
        indices, store, end = pc.index_in(image_ids, value_set=rows["image_id"]), cache.split(split), 0
        for uri, count in zip(store.uris, store.shards, strict=True):
            start, end = end, end + count
            wanted = indices.slice(start, end - start).drop_null()
            if len(wanted):
                block = rows.select(["row", "image_id", "sha256"]).take(wanted)
                blocks.append(block.append_column("uri", pa.array([uri] * len(wanted))))
    assert sum(block.num_rows for block in blocks) == rows.num_rows, "the pixel cache lacks images of its snapshot"
    return blocks


def _stream(inference: BatchInference, blocks: Sequence[pa.Table], reading: Reading) -> Iterator[pa.Table]:
    """Yields rows of `PREDICTED`."""
    predictor = partial(ScoringPredictor, options=inference.options)
    for batch in stream_predictions(
        inference.bundle, blocks, reading, predictor, inference.batch_size, KEEP, actors=inference.actors
    ):
        yield batch.select(PREDICTED.names).cast(PREDICTED)
