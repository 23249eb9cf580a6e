"""From gold to batches: decode once into the pixel cache, then stream its shards."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import ArrayType, PrimitiveType
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow import fs

from chestai.lake import Lake, Snapshot, now
from chestai.screen import Screen
from pipelines.decoding import decode

SHARD_ROWS = 256  # few large blocks: each costs Ray Data a task

COLUMNS = (
    Field("image_id", PrimitiveType("string"), nullable=False),
    Field("targets", ArrayType(PrimitiveType("float"), contains_null=True), nullable=False),
    Field("pixels", PrimitiveType("binary"), nullable=False),
    Field("split", PrimitiveType("string"), nullable=False),
)


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
    rows = lake.labelled(snapshot, ["path", "split"])
    splits = [rows.filter(pc.field("split") == split) for split in ("train", "val", "test")]
    chunks = [part.slice(at, SHARD_ROWS) for part in splits for at in range(0, part.num_rows, SHARD_ROWS)]
    actions, unread, done = [], [], 0
    pending = [_write_shard.remote(chunk, lake, cache.table, size) for chunk in chunks]
    with screen.progress("decode", rows.num_rows, "images") as progress:
        while pending:
            ready, pending = ray.wait(pending, num_returns=1)
            shard = ray.get(ready[0])
            unread += shard["unread"]
            done += shard["rows"] + len(shard["unread"])
            progress.update(done)
            if shard["rows"]:
                actions.append(_add_action(shard))
    assert done == rows.num_rows, f"{done} of {rows.num_rows} images reached the pixel cache"
    create_table_with_add_actions(
        lake.uri(cache.table), Schema(list(COLUMNS)), actions, mode="error", partition_by=["split"]
    )
    return PixelCache(lake, snapshot, size, tuple(unread))


@ray.remote(num_cpus=1)
def _write_shard(chunk: pa.Table, lake: Lake, table: str, size: int) -> dict[str, Any]:
    """Decode a chunk of one split into one Parquet file; give its place, size and row count."""
    images, reasons = decode(chunk["path"].to_pylist(), size)
    read = [index for index, image in enumerate(images) if image is not None]
    unread = [chunk["image_id"][index].as_py() for index, reason in enumerate(reasons) if reason is not None]
    split = chunk["split"][0].as_py()
    shard = {"unread": unread, "rows": len(read), "split": split}
    if not read:
        return shard
    kept = chunk.take(read)
    rows = pa.table(
        {
            "image_id": kept["image_id"],
            "targets": kept["targets"],
            "pixels": pa.array([images[index] for index in read], pa.binary()),
        }
    )
    name = f"split={split}/{uuid.uuid4().hex}.parquet"
    filesystem, root = lake.filesystem(table)
    filesystem.create_dir(f"{root}/split={split}", recursive=True)
    pq.write_table(rows, f"{root}/{name}", filesystem=filesystem, compression="none", use_dictionary=False)
    return {**shard, "name": name, "bytes": filesystem.get_file_info(f"{root}/{name}").size}


def _add_action(shard: Mapping[str, Any]) -> AddAction:
    return AddAction(
        path=shard["name"],
        size=shard["bytes"],
        partition_values={"split": shard["split"]},
        modification_time=int(now().timestamp() * 1000),
        data_change=True,
        stats=f'{{"numRecords": {shard["rows"]}}}',
    )


def _read_shards(paths: Sequence[str], size: int) -> dict[str, np.ndarray]:
    tables = []
    for path in paths:
        filesystem, inner = fs.FileSystem.from_uri(path)
        tables.append(pq.read_table(inner, filesystem=filesystem, partitioning=None))
    rows = pa.concat_tables(tables).combine_chunks()
    images = np.frombuffer(b"".join(rows["pixels"].to_pylist()), np.uint8).reshape(-1, size, size)
    targets = np.array(rows["targets"].to_pylist(), np.float32)  # null becomes NaN
    return {"pixels": images, "targets": targets}
