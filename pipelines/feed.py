"""From gold to batches: decode once into the pixel cache, then stream its shards."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from deltalake import DeltaTable
from pyarrow import fs

from chestai.delta import Part, commit, write_part
from chestai.lake import Lake, Snapshot
from chestai.screen import Screen
from pipelines.decoding import decode

SHARD_ROWS = 256  # few large blocks: each costs Ray Data a task

ROWS = pa.schema({"image_id": pa.string(), "targets": pa.list_(pa.float32()), "pixels": pa.binary()})
SCHEMA = ROWS.append(pa.field("split", pa.string()))


@dataclass(frozen=True)
class PixelCache:
    """The images of a snapshot, decoded and resized: `pixels/<snapshot>-<size>`.

    A Delta table partitioned by split, whose Parquet files hold `uint8` pixels as uncompressed binary (33,000 images
    a second and core at 320 px; a tensor column would take four bytes a pixel). Its single commit makes it visible.

    unread: image_ids of gold that could no longer be read.
    """

    lake: Lake
    snapshot: Snapshot
    size: int
    unread: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        return f"pixels/{self.snapshot.snapshot_id}-{self.size}"

    def shards(self, split: str) -> list[str]:
        """URIs of the Parquet files of a split."""
        return sorted(DeltaTable(self.lake.uri(self.table)).file_uris([("split", "=", split)]))

    def rows(self, split: str) -> int:
        """Images of a split."""
        actions = pa.table(DeltaTable(self.lake.uri(self.table)).get_add_actions(flatten=True))
        pairs = zip(actions["partition.split"].to_pylist(), actions["num_records"].to_pylist(), strict=True)
        return sum(count for name, count in pairs if name == split)

    def stream(self, split: str) -> ray.data.Dataset:
        """A split as a Ray Dataset of `pixels` uint8 (N, S, S) and `targets` float32 (N, F), NaN = not known.

        Tasks read whole shards from a list of paths: `ray.data.read_parquet` takes seconds to its first batch.
        """
        paths = [{"path": path} for path in self.shards(split)]
        size = self.size
        return ray.data.from_items(paths, override_num_blocks=max(len(paths), 1)).map_batches(
            lambda batch: _read_shards(batch["path"], size), batch_size=1, num_cpus=0.5
        )


def pixel_cache(lake: Lake, snapshot: Snapshot, size: int, screen: Screen) -> PixelCache:
    """The cache of a snapshot at a size, built by parallel Ray tasks where it is not there yet."""
    cache = PixelCache(lake, snapshot, size)
    if lake.version(cache.table) is not None:
        return cache
    rows = lake.usable(snapshot, ["path", "split"])
    splits = [rows.filter(pc.field("split") == split) for split in ("train", "val", "test")]
    chunks = [part.slice(at, SHARD_ROWS) for part in splits for at in range(0, part.num_rows, SHARD_ROWS)]
    parts, unread, done = [], [], 0
    pending = [_write_shard.remote(chunk, lake, cache.table, size) for chunk in chunks]
    with screen.progress("decode", rows.num_rows, "images") as progress:
        while pending:
            ready, pending = ray.wait(pending, num_returns=1)
            part, missing = ray.get(ready[0])
            unread += missing
            parts += [part] if part else []
            done += (part.rows if part else 0) + len(missing)
            progress.update(done)
    assert done == rows.num_rows, f"{done} of {rows.num_rows} images reached the pixel cache"
    commit(lake, cache.table, SCHEMA, parts, partition_by=["split"])
    return PixelCache(lake, snapshot, size, tuple(unread))


@ray.remote(num_cpus=1)
def _write_shard(chunk: pa.Table, lake: Lake, table: str, size: int) -> tuple[Part | None, list[str]]:
    """Decode a chunk of one split into one Parquet file; give the file, and the images that could not be read."""
    images, reasons = decode(chunk["path"].to_pylist(), size)
    read = [index for index, image in enumerate(images) if image is not None]
    unread = [chunk["image_id"][index].as_py() for index, reason in enumerate(reasons) if reason is not None]
    if not read:
        return None, unread
    kept = chunk.take(read)
    columns = [kept["image_id"], kept["targets"], pa.array([images[index] for index in read], pa.binary())]
    rows = pa.table(columns, schema=ROWS).combine_chunks().to_batches()
    split = {"split": chunk["split"][0].as_py()}
    return write_part(lake, table, ROWS, rows, partition=split, compression="none"), unread


def _read_shards(paths: Sequence[str], size: int) -> dict[str, np.ndarray]:
    tables = []
    for path in paths:
        filesystem, inner = fs.FileSystem.from_uri(path)
        tables.append(pq.read_table(inner, filesystem=filesystem, partitioning=None))
    rows = pa.concat_tables(tables).combine_chunks()
    images = np.frombuffer(b"".join(rows["pixels"].to_pylist()), np.uint8).reshape(-1, size, size)
    targets = np.array(rows["targets"].to_pylist(), np.float32)  # null becomes NaN
    return {"pixels": images, "targets": targets}
