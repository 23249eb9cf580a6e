"""What a corpus still lacks, read and put through the network, whatever a file does to the process that reads it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from pipelines.data.decode import READ, read_rows, read_shard
from pipelines.data.digest_set import Digests
from pipelines.data.pixel_cache import PixelCache, stored
from pipelines.inference.engine import blocks_of, stream_predictions
from pipelines.inference.predictors import ANSWER, OutputOptions, ScoringPredictor

CRASHES_READER = "crashes_reader"

Read = Callable[[pa.Table], pa.Table | Iterator[pa.Table]]

# A file's answer: `READ` without its pixels; answer: null where not scored or known already.
ANSWERED = pa.schema([one for one in READ if one.name != "pixels"]).append(pa.field("answer", ANSWER))
KEEP = ["row", "sha256", "detail"]

AT_ONCE = 64  # files that are tried alone
HOPELESS = 100  # that many die and none survives: it is not the files
ENOUGH = 1000  # that many survive and none dies: it is not the reading


@dataclass(frozen=True)
class BatchInference:
    """What answers come from.

    batch_size: images a forward pass. actors: as in `inference.engine.streamed`. gate: whether files are refused
    that are unlike the chest radiographs that the model knows.
    """

    bundle: Bundle
    asked: OutputOptions
    batch_size: int
    actors: int | None
    gate: bool = False

    def stream(self, blocks: Sequence[pa.Table], read: Read, **errors: Any) -> Iterator[pa.Table]:
        """Rows of `ANSWERED`; arguments as `pipelines.inference.engine.streamed`."""
        work = partial(ScoringPredictor, asked=self.asked)
        for batch in stream_predictions(
            self.bundle, blocks, read, work, self.batch_size, KEEP, actors=self.actors, **errors
        ):
            yield batch.select(ANSWERED.names).cast(ANSWERED)


def from_files(means: BatchInference, rows: pa.Table, known: Digests) -> Iterator[pa.Table]:
    """Answers from the files themselves.

    A file that kills its reader takes its block with it. What has no answer then is read alone: what kills its reader
    again is `CRASHES_READER`, the rest goes through once more, and any error is then raised.

    Args:
        rows: `row` (ascending), `path`, `bytes`; each is answered exactly once.
        known: contents that need no answer.

    Raises:
        RuntimeError: every reader dies.
    """
    gate = ray.put(means.bundle.intake if means.gate else None)
    read = partial(read_rows, size=means.bundle.card.size, known=ray.put(known), gate=gate)
    numbers = rows["row"].to_numpy()
    left = np.ones(rows.num_rows, bool)

    def answers(some: pa.Table, attempts: int, skip: bool) -> Iterator[pa.Table]:
        for batch in means.stream(blocks_of(some, means.batch_size), read, attempts=attempts, skip=skip):
            at = np.searchsorted(numbers, batch["row"].to_numpy())
            fresh = left[at]
            left[at] = False
            yield batch.filter(pa.array(fresh))

    yield from answers(rows, attempts=2, skip=True)
    if not left.any():
        return
    dead = find_crashing_files(rows.filter(pa.array(left)), read)
    left[np.searchsorted(numbers, np.array(dead, np.int64))] = False
    yield refused(dead)
    yield from answers(rows.filter(pa.array(left)), attempts=4, skip=False)


def find_crashing_files(rows: pa.Table, read: partial[Iterator[pa.Table]]) -> list[int]:
    """The `row` of each file whose reader dies, twice, when it reads nothing else; it gives up where none does.

    Raises:
        RuntimeError: the first hundred readers all died.
    """
    alone = ray.remote(num_cpus=1, max_retries=1)(_survives)
    waiting: dict[ray.ObjectRef, int] = {}
    dead: list[int] = []
    tried = 0
    for at in range(rows.num_rows + 1):
        if tried >= ENOUGH and not dead:
            break
        if at < rows.num_rows:
            waiting[alone.remote(read, rows.slice(at, 1))] = rows["row"][at].as_py()
        while waiting and (at == rows.num_rows or len(waiting) >= AT_ONCE):
            (ref,), _ = ray.wait(list(waiting))
            row, tried = waiting.pop(ref), tried + 1
            try:
                ray.get(ref)
            except (WorkerCrashedError, OutOfMemoryError, NodeDiedError):
                dead.append(row)
            if len(dead) == tried >= HOPELESS:
                raise RuntimeError(f"the readers of {tried} files all died: Ray's logs say of what")
    return dead


def _survives(read: partial[Iterator[pa.Table]], rows: pa.Table) -> bool:
    return all(piece.num_rows for piece in read(rows))


def refused(rows: Sequence[int]) -> pa.Table:
    """Answers of files that kill their readers."""
    detail = "the process that reads it dies"
    found = [{"row": row, "not_scored": CRASHES_READER, "detail": detail} for row in rows]
    return pa.Table.from_pylist(found, schema=ANSWERED)


def from_cache(means: BatchInference, cache: PixelCache, rows: pa.Table) -> Iterator[pa.Table]:
    """Answers from the pixel cache of a snapshot, without any decoding.

    The cache holds what the files held when it was built, which is what the snapshot says that they hold.

    Args:
        rows: `row`, `image_id`, `sha256` of usable images of the snapshot; each is answered exactly once.
    """
    yield from means.stream(shards(cache.lake, cache, rows), read_shard)


def shards(lake: Lake, cache: PixelCache, rows: pa.Table) -> list[pa.Table]:
    """Rows in blocks that lie in a file of the cache each: `row`, `image_id`, `sha256`, `uri`."""
    blocks = []
    for split in ("train", "val", "test"):
        image_ids = stored(lake, cache.snapshot, split)["image_id"]
        places, held, end = pc.index_in(image_ids, value_set=rows["image_id"]), cache.split(split), 0
        for uri, count in zip(held.uris, held.shards, strict=True):
            start, end = end, end + count
            wanted = places.slice(start, end - start).drop_null()
            if len(wanted):
                block = rows.select(["row", "image_id", "sha256"]).take(wanted)
                blocks.append(block.append_column("uri", pa.array([uri] * len(wanted))))
    assert sum(block.num_rows for block in blocks) == rows.num_rows, "the pixel cache lacks images of its snapshot"
    return blocks
