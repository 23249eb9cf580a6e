"""Where training images come from: the pixel cache, decoded once, or the files themselves.

Both hold a split in the same random order of images, in shards of the same rows, so what a network sees in which step
does not depend on which of them it is fed from.
"""

import os
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from deltalake import DeltaTable
from numpy.typing import NDArray
from pyarrow import fs

from chestai.cli.console import Screen
from chestai.lake.delta import Part, commit, write_part
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from pipelines.data.decode import decode

SHARD_ROWS = 256  # few large files: each costs a task when it is made, and a request on an object store
GROUP_ROWS = 32  # of a Parquet row group, the least that is read of a shard

ROWS = pa.schema(
    {
        "image_id": pa.string(),
        "targets": pa.list_(pa.float32()),
        "pixels": pa.binary(),
        "unread": pa.string(),  # why an image could no longer be read; it is black, and its targets are not known
    }
)
SCHEMA = ROWS.append(pa.field("split", pa.string())).append(pa.field("shard", pa.int32()))

Pixels = NDArray[np.uint8]
Targets = NDArray[np.float32]


class ImageStore(Protocol):
    """A split in storage order.

    size: pixels a side. shards: rows of each shard, in order. cpus: of a task that reads. at_once: tasks at a time that
    one stream keeps busy; None: as many as there is room for.
    """

    @property
    def size(self) -> int: ...

    @property
    def shards(self) -> tuple[int, ...]: ...

    @property
    def cpus(self) -> float: ...

    @property
    def at_once(self) -> int | None: ...

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        """Any rows, in any order: pixels uint8 (n, S, S), targets float32 (n, F) with NaN = not known."""
        ...


def stored(lake: Lake, snapshot: Snapshot, split: str) -> pa.Table:
    """The usable images of a split in storage order: image_id, path, targets.

    Sorted by content hash: neighbours have nothing in common, and the order is the same wherever it is asked for.
    """
    rows = lake.usable(snapshot, ["path", "sha256", "split"])
    return rows.filter(pc.field("split") == split).sort_by("sha256").select(["image_id", "path", "targets"])


def shards_of(rows: int) -> tuple[int, ...]:
    """Rows of each shard."""
    return tuple(min(SHARD_ROWS, rows - at) for at in range(0, rows, SHARD_ROWS))


@dataclass(frozen=True)
class FileStore:
    """A split whose files are read and decoded each time they are wanted."""

    rows: ray.ObjectRef  # of the table that `stored` gives
    count: int
    size: int
    cpus: float = 1.0
    at_once: int | None = None

    @property
    def shards(self) -> tuple[int, ...]:
        return shards_of(self.count)

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        table = ray.get(self.rows).take(rows)
        images, reasons = decode(table["path"].to_pylist(), self.size)
        black = bytes(self.size**2)
        pixels = np.frombuffer(b"".join(image or black for image in images), np.uint8)
        targets = as_targets(table["targets"])
        targets[[reason is not None for reason in reasons]] = np.nan
        return pixels.reshape(-1, self.size, self.size), targets


@dataclass(frozen=True)
class ShardStore:
    """A split in the pixel cache: URIs of its Parquet files, which hold `shards` rows each."""

    uris: tuple[str, ...]
    shards: tuple[int, ...]
    size: int
    cpus: float = 0.5

    @property
    def at_once(self) -> int:
        return max(2, len(os.sched_getaffinity(0)))  # with more tasks than real cores, the next piece comes later

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        starts = np.concatenate([[0], np.cumsum(self.shards)])
        shard = np.searchsorted(starts, rows, side="right") - 1
        group, inside = np.divmod(rows - starts[shard], GROUP_ROWS)
        pixels = np.empty((len(rows), self.size, self.size), np.uint8)
        places, targets = [], []
        for one in np.unique(shard):
            with _opened(self.uris[one]) as file:
                for number in np.unique(group[shard == one]):
                    at = np.flatnonzero((shard == one) & (group == number))
                    table = file.read_row_group(int(number), columns=["pixels", "targets"], use_threads=False)
                    pixels[at] = _images(table["pixels"], self.size)[inside[at]]
                    targets.append(as_targets(table["targets"])[inside[at]])
                    places.append(at)
        return pixels, np.concatenate(targets)[np.argsort(np.concatenate(places))]


def _opened(uri: str) -> pq.ParquetFile:
    filesystem, path = fs.FileSystem.from_uri(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        filesystem = fs.LocalFileSystem(use_mmap=True)  # twice as fast as copying out of the page cache
    return pq.ParquetFile(path, filesystem=filesystem)


def _images(column: pa.ChunkedArray, size: int) -> Pixels:
    """Images as a view of an Arrow binary column that holds size * size bytes a row, and no null."""
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies
    _, offsets, data = chunk.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(chunk) + 1, chunk.offset * 4)
    return np.frombuffer(data, np.uint8, bounds[-1] - bounds[0], bounds[0]).reshape(len(chunk), size, size)


def as_targets(column: pa.ChunkedArray) -> Targets:
    """A column of lists as float32 (n, F), null as NaN; a copy."""
    lists = column.combine_chunks()
    return np.array(lists.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(lists), -1)


@dataclass(frozen=True)
class PixelCache:
    """The images of a snapshot, decoded and resized: `pixels/<snapshot>-<size>`.

    A Delta table partitioned by split and shard, whose Parquet files hold `uint8` pixels as uncompressed binary: see
    tests/bench/storage.py for the other ways. Its single commit makes it visible.
    """

    lake: Lake
    snapshot: Snapshot
    size: int

    @property
    def table(self) -> str:
        return f"pixels/{self.snapshot.snapshot_id}-{self.size}"

    @property
    def built(self) -> bool:
        return self.lake.version(self.table) is not None and "shard" in self._files().column_names

    def split(self, name: str) -> ShardStore:
        """The shards of a split."""
        files = self._files()
        mine = files.filter(pc.field("split") == name).sort_by("shard")
        root = self.lake.uri(self.table)
        return ShardStore(
            tuple(f"{root}/{path}" if "://" in root else f"file://{root}/{path}" for path in mine["path"].to_pylist()),
            tuple(mine["rows"].to_pylist()),
            self.size,
        )

    def unread(self) -> int:
        """Images that could no longer be read when the cache was built."""
        files = self._files()
        return int(pc.sum(files["unread"]).as_py() or 0)

    def _files(self) -> pa.Table:
        """path, rows, unread, split, shard of each file; a cache of a former format lacks the shard."""
        actions = pa.table(DeltaTable(self.lake.uri(self.table)).get_add_actions(flatten=True))
        if "partition.shard" not in actions.column_names:
            return actions.select(["path"])
        return pa.table(
            {
                "path": actions["path"],
                "rows": actions["num_records"],
                "unread": pc.subtract(actions["num_records"], actions["null_count.unread"]),
                "split": actions["partition.split"],
                "shard": actions["partition.shard"],
            }
        )


def pixel_cache(lake: Lake, snapshot: Snapshot, size: int, screen: Screen) -> PixelCache:
    """The cache of a snapshot at a size, built by Ray Data where it is not there yet."""
    cache = PixelCache(lake, snapshot, size)
    if cache.built:
        return cache
    tables = {split: stored(lake, snapshot, split) for split in ("train", "val", "test")}
    chunks = [
        table.slice(at, SHARD_ROWS)
        .append_column("split", pa.array([split] * min(SHARD_ROWS, table.num_rows - at)))
        .append_column("shard", pa.array([at // SHARD_ROWS] * min(SHARD_ROWS, table.num_rows - at), pa.int32()))
        for split, table in tables.items()
        for at in range(0, table.num_rows, SHARD_ROWS)
    ]
    total = sum(table.num_rows for table in tables.values())
    work = ray.data.from_arrow(chunks).map_batches(
        partial(_write_shard, lake=lake, table=cache.table, size=size),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        zero_copy_batch=True,
    )
    parts: list[Part] = []
    with screen.progress("decode", total, "images") as progress:
        for batch in work.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            parts += [Part.from_row(row) for row in batch.to_pylist()]
            progress.update(sum(part.rows for part in parts))
    assert sum(part.rows for part in parts) == total, "an image is missing from the pixel cache, or there twice"
    commit(lake, cache.table, SCHEMA, parts, partition_by=["split", "shard"])
    return cache


def _write_shard(chunk: pa.Table, lake: Lake, table: str, size: int) -> pa.Table:
    """Decode one shard into one Parquet file, and give its entry of the table."""
    images, reasons = decode(chunk["path"].to_pylist(), size)
    unknown = [None] * len(chunk["targets"][0])
    targets = [
        known if reason is None else unknown
        for known, reason in zip(chunk["targets"].to_pylist(), reasons, strict=True)
    ]
    columns = [
        chunk["image_id"].combine_chunks(),
        pa.array(targets, pa.list_(pa.float32())),
        pa.array([image or bytes(size**2) for image in images], pa.binary()),
        pa.array(reasons, pa.string()),
    ]
    rows = pa.record_batch(columns, schema=ROWS)
    groups = [rows.slice(at, GROUP_ROWS) for at in range(0, rows.num_rows, GROUP_ROWS)]
    place = {name: str(chunk[name][0].as_py()) for name in ("split", "shard")}
    part = write_part(lake, table, ROWS, groups, partition=place, compression="none")
    return pa.Table.from_pylist([part.row()])


def store_of(lake: Lake, snapshot: Snapshot, size: int, split: str, cached: bool) -> ImageStore:
    """Where a split is read from: the pixel cache, which must be there, or the files."""
    if cached:
        return PixelCache(lake, snapshot, size).split(split)
    rows = stored(lake, snapshot, split)
    return FileStore(ray.put(rows.combine_chunks()), rows.num_rows, size)
