"""Stores of training images: the pixel cache, decoded once, or the files themselves.

Both hold a split in the same random order of images, in shards of the same rows, so the content of a training step does
not depend on the store.
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
from numpy.typing import NDArray
from pyarrow import fs

from chestai.cli.console import Screen
from chestai.lake.delta import Part, commit_parts, write_part
from chestai.lake.files import resolve
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from pipelines.data.decode import decode_files

SHARD_ROWS = 256  # few large files: each costs a task when it is written, and a request on an object store
GROUP_ROWS = 32  # per Parquet row group, the smallest part of a shard that can be read

CACHE_ROWS = pa.schema(
    {
        "image_id": pa.string(),
        "targets": pa.list_(pa.float32()),
        "pixels": pa.binary(),
        "unread": pa.string(),  # why an image could no longer be read; its pixels are 0 and its targets null
    }
)
CACHE_SCHEMA = CACHE_ROWS.append(pa.field("split", pa.string())).append(pa.field("shard", pa.int32()))

Pixels = NDArray[np.uint8]
Targets = NDArray[np.float32]


class ImageStore(Protocol):
    """A split in storage order.

    Attributes:
        size: Pixels per side.
        shards: Rows of each shard, in order.
        task_cpus: Cores of a reading task.
        max_tasks: Tasks that one stream runs at a time; None for as many as there is room for.
    """

    @property
    def size(self) -> int: ...

    @property
    def shards(self) -> tuple[int, ...]: ...

    @property
    def task_cpus(self) -> float: ...

    @property
    def max_tasks(self) -> int | None: ...

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        """Read rows in any order: pixels uint8 (n, S, S), targets float32 (n, F) with NaN = not known."""
        ...


def read_split_rows(lake: Lake, snapshot: Snapshot, split: str) -> pa.Table:
    """Return the usable images of a split in storage order: image_id, path, targets, source, patient_id.

    They are sorted by content hash: neighbours have nothing in common, and the order is the same everywhere.
    """
    rows = lake.read_usable(snapshot, ["path", "sha256", "split", "source", "patient_id"])
    columns = ["image_id", "path", "targets", "source", "patient_id"]
    return rows.filter(pc.field("split") == split).sort_by("sha256").select(columns)


@dataclass(frozen=True)
class FileStore:
    """A split whose files are read and decoded each time."""

    rows: ray.ObjectRef  # of the table from `read_split_rows`
    count: int
    size: int
    task_cpus: float = 1.0
    max_tasks: int | None = None

    @property
    def shards(self) -> tuple[int, ...]:
        return tuple(min(SHARD_ROWS, self.count - at) for at in range(0, self.count, SHARD_ROWS))

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        table = ray.get(self.rows).take(rows)
        images, reasons = decode_files(table["path"].to_pylist(), self.size)
        black_image = bytes(self.size**2)
        pixels = np.frombuffer(b"".join(image or black_image for image in images), np.uint8)
        targets = to_targets(table["targets"])
        targets[[reason is not None for reason in reasons]] = np.nan
        return pixels.reshape(-1, self.size, self.size), targets


@dataclass(frozen=True)
class ShardStore:
    """A split in the pixel cache: URIs of its Parquet files, which hold `shards` rows each."""

    uris: tuple[str, ...]
    shards: tuple[int, ...]
    size: int
    task_cpus: float = 0.5

    @property
    def max_tasks(self) -> int:
        return max(2, len(os.sched_getaffinity(0)))  # more tasks than real cores would delay the next piece

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        starts = np.concatenate([[0], np.cumsum(self.shards)])
        shards = np.searchsorted(starts, rows, side="right") - 1
        groups, offsets = np.divmod(rows - starts[shards], GROUP_ROWS)
        pixels = np.empty((len(rows), self.size, self.size), np.uint8)
        indices, targets = [], []
        for shard in np.unique(shards):
            with _open_parquet(self.uris[shard]) as file:
                for group in np.unique(groups[shards == shard]):
                    at = np.flatnonzero((shards == shard) & (groups == group))
                    table = file.read_row_group(int(group), columns=["pixels", "targets"], use_threads=False)
                    pixels[at] = _view_images(table["pixels"], self.size)[offsets[at]]
                    targets.append(to_targets(table["targets"])[offsets[at]])
                    indices.append(at)
        return pixels, np.concatenate(targets)[np.argsort(np.concatenate(indices))]


def _open_parquet(uri: str) -> pq.ParquetFile:
    filesystem, path = resolve(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        filesystem = fs.LocalFileSystem(use_mmap=True)  # twice as fast as copying out of the page cache
    return pq.ParquetFile(path, filesystem=filesystem)


def _view_images(column: pa.ChunkedArray, size: int) -> Pixels:
    """Return a view of an Arrow binary column that holds size * size bytes per row, and no null, as images."""
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies
    _, offsets, data = chunk.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(chunk) + 1, chunk.offset * 4)
    return np.frombuffer(data, np.uint8, bounds[-1] - bounds[0], bounds[0]).reshape(len(chunk), size, size)


def to_targets(column: pa.ChunkedArray) -> Targets:
    """Copy a column of lists as float32 (n, F), null as NaN."""
    lists = column.combine_chunks()
    return np.array(lists.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(lists), -1)


@dataclass(frozen=True)
class PixelCache:
    """The decoded and resized images of a snapshot, in the Delta table `pixels/<snapshot>-<size>`.

    It is partitioned by split and shard. Its Parquet files hold `uint8` pixels as uncompressed binary;
    tests/bench/storage.py compares alternatives. Its single commit makes it visible.
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
        """Return the shards of a split."""
        files = self._files()
        shards = files.filter(pc.field("split") == name).sort_by("shard")
        uris = tuple(self.lake.uri(self.table, path) for path in shards["path"].to_pylist())
        return ShardStore(uris, tuple(shards["rows"].to_pylist()), self.size)

    def count_unread(self) -> int:
        """Count the images that could no longer be read when the cache was built."""
        files = self._files()
        return int(pc.sum(files["unread"]).as_py() or 0)

    def _files(self) -> pa.Table:
        """Return path, rows, unread, split and shard of each file. A cache of the old format lacks the shard."""
        actions = pa.table(self.lake.open(self.table).get_add_actions(flatten=True))
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


def build_pixel_cache(lake: Lake, snapshot: Snapshot, size: int, screen: Screen) -> PixelCache:
    """Return the cache of a snapshot at a size; Ray Data builds it if it does not exist."""
    cache = PixelCache(lake, snapshot, size)
    if cache.built:
        return cache
    tables = {split: read_split_rows(lake, snapshot, split) for split in ("train", "val", "test")}
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
    assert sum(part.rows for part in parts) == total, "an image is missing from the pixel cache, or in it twice"
    commit_parts(lake, cache.table, CACHE_SCHEMA, parts, partition_by=["split", "shard"])
    return cache


def _write_shard(chunk: pa.Table, lake: Lake, table: str, size: int) -> pa.Table:
    """Decode one shard into one Parquet file, and return its entry for the commit."""
    images, reasons = decode_files(chunk["path"].to_pylist(), size)
    unknown = [None] * len(chunk["targets"][0])
    targets = [
        row_targets if reason is None else unknown
        for row_targets, reason in zip(chunk["targets"].to_pylist(), reasons, strict=True)
    ]
    columns = [
        chunk["image_id"].combine_chunks(),
        pa.array(targets, pa.list_(pa.float32())),
        pa.array([image or bytes(size**2) for image in images], pa.binary()),
        pa.array(reasons, pa.string()),
    ]
    rows = pa.record_batch(columns, schema=CACHE_ROWS)
    groups = [rows.slice(at, GROUP_ROWS) for at in range(0, rows.num_rows, GROUP_ROWS)]
    partition = {name: str(chunk[name][0].as_py()) for name in ("split", "shard")}
    part = write_part(lake, table, CACHE_ROWS, groups, partition=partition, compression="none")
    return pa.Table.from_pylist([part.to_row()])


def open_store(lake: Lake, snapshot: Snapshot, size: int, split: str, cached: bool) -> ImageStore:
    """Return the store of a split: the pixel cache, which must exist, or the files."""
    if cached:
        return PixelCache(lake, snapshot, size).split(split)
    rows = read_split_rows(lake, snapshot, split)
    return FileStore(ray.put(rows.combine_chunks()), rows.num_rows, size)
