"""A small lake without ETL and training: image files, their gold tables, and a snapshot of them."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, LABELS, SCHEMAS
from chestai.lake.snapshot import Snapshot
from chestai.model.registry import Registry

VOCABULARY = ("Mass", "Effusion")


def borrow_champion(registered: Config, lake: Path) -> Config:
    """The configuration of a new lake with the registry of another, in torch, which needs no export."""
    uri = Registry(registered.tracking, Lake(registered.lake)).uri
    return conf.load([f"lake={lake}", f"tracking.uri={uri}", "score.batch_size=4", "runtime.engine=torch"])


def write_gold(
    lake: Lake, name: str, folder: Path, images: Mapping[str, bytes], targets: Mapping[str, Sequence[float | None]]
) -> Snapshot:
    """Writes files, gold tables and a snapshot of this name.

    Args:
        images: Name -> content. Patients are `p0`, `p0`, `p1`, `p1` and so on; views, sexes, ages and splits alternate.
        targets: Name -> label of each finding of `VOCABULARY`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, (image_id, content) in enumerate(images.items()):
        (folder / image_id).write_bytes(content)
        rows.append(
            {
                "image_id": image_id,
                "path": str(folder / image_id),
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "source": "nih",
                "patient_id": f"p{number // 2}",
                "view": ("PA", "AP")[number % 2],
                "sex": ("F", "M")[number // 2 % 2],
                "age_years": 20.0 + number,
                "split": ("train", "test")[number // 4 % 2],
            }
        )
    labels = [{"image_id": image_id, "targets": targets[image_id]} for image_id in images]
    versions = {
        table: lake.write(table, pa.Table.from_pylist(some, SCHEMAS[table]))
        for table, some in ((IMAGES, rows), (LABELS, labels))
    }
    none = tuple((0,) * len(VOCABULARY) for _ in VOCABULARY)
    snapshot = Snapshot(
        snapshot_id=name,
        built_at=datetime.now(UTC),
        source="nih",
        fingerprint=name,
        vocabulary=VOCABULARY,
        versions=versions,
        accounting={},
        splits={},
        pos_weight=(1.0,) * len(VOCABULARY),
        cooccurrence=none,
        pixel_mean=0.5,
        pixel_std=0.25,
        synthetic=True,
    )
    lake.publish(snapshot)
    return snapshot
