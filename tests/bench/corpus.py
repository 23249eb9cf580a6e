"""A lake for benchmarks, made without Spark: gold tables over any files, and a pixel cache of noise."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from chestai.clock import now
from chestai.labels.findings import NIH14
from chestai.lake.delta import commit_parts, write_part
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS
from chestai.lake.snapshot import Snapshot
from pipelines.data.pixel_cache import CACHE_ROWS, CACHE_SCHEMA, GROUP_ROWS, SHARD_ROWS, PixelCache


def make_lake(files: list[Path], root: Path, name: str) -> tuple[Lake, Snapshot]:
    """Make a lake whose newest snapshot holds these files, all in train, with random labels."""
    lake, random = Lake(str(root)), np.random.default_rng(0)
    ids = [f"{number:08d}_000" for number in range(len(files))]
    rows = [
        {
            "image_id": image_id,
            "path": str(file),
            "source": "bench",
            "patient_id": image_id,
            "view": "PA",
            "sha256": random.bytes(16).hex(),
            "split": "train",
        }
        for image_id, file in zip(ids, files, strict=True)
    ]
    labels = (random.random((len(files), len(NIH14))) < 0.1).astype(np.float32)
    tables = {
        IMAGES: pa.Table.from_pylist(rows, schema=SCHEMAS[IMAGES]),
        LABELS: pa.table({"image_id": ids, "targets": pa.array(labels.tolist(), pa.list_(pa.float32()))}),
        BOXES: SCHEMAS[BOXES].empty_table(),
        QUARANTINE: SCHEMAS[QUARANTINE].empty_table(),
    }
    snapshot = Snapshot(
        snapshot_id=name,
        built_at=now(),
        source="bench",
        fingerprint=name,
        vocabulary=tuple(NIH14),
        versions={table: lake.write(table, rows) for table, rows in tables.items()},
        accounting={},
        splits={"train": {"files": len(files)}},
        pos_weight=(9.0,) * len(NIH14),
        cooccurrence=(),
        pixel_mean=0.5,
        pixel_std=0.25,
        synthetic=True,
    )
    lake.publish(snapshot)
    return lake, snapshot


def make_noise_cache(lake: Lake, snapshot: Snapshot, size: int, counts: dict[str, int]) -> PixelCache:
    """Make a pixel cache of noise, with `counts` images per split; noise reads as fast as other images."""
    cache, random = PixelCache(lake, snapshot, size), np.random.default_rng(0)
    parts = []
    shards = [(split, at) for split, count in counts.items() for at in range(0, count, SHARD_ROWS)]
    for split, at in shards:
        rows = min(SHARD_ROWS, counts[split] - at)
        pixels = random.integers(0, 256, (rows, size * size), np.uint8)
        targets = (random.random((rows, len(snapshot.vocabulary))) < 0.1).astype(np.float32)
        columns = [
            pa.array([str(at + row) for row in range(rows)]),
            pa.array(targets.tolist(), pa.list_(pa.float32())),
            pa.array([image.tobytes() for image in pixels], pa.binary()),
            pa.nulls(rows, pa.string()),
        ]
        batch = pa.record_batch(columns, schema=CACHE_ROWS)
        groups = [batch.slice(start, GROUP_ROWS) for start in range(0, rows, GROUP_ROWS)]
        partition = {"split": split, "shard": str(at // SHARD_ROWS)}
        parts.append(write_part(lake, cache.table, CACHE_ROWS, groups, partition, "none"))
    commit_parts(lake, cache.table, CACHE_SCHEMA, parts, ["split", "shard"])
    return cache
