"""ETL builds written straight into a lake, without an ETL."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.clock import now
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.lake.remark import Remark
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS
from chestai.lake.snapshot import Snapshot

SPLITS = ("train", "val", "test")
Rows = Sequence[dict[str, Any]]


def write_build(
    root: Path,
    images: Rows,
    vocabulary: Sequence[str] = NIH14,
    boxes: Rows = (),
    quarantine: Rows = (),
    accounting: dict[str, int] | None = None,
    pixel_mean: float = 0.5,
    synthetic: bool = True,
) -> tuple[Lake, Snapshot]:
    """Write a lake with one build. images: rows of gold/images with their `targets`, from which counts are made."""
    lake = Lake(str(root / "lake"))
    targets = np.array([image["targets"] for image in images], float).reshape(len(images), len(vocabulary))
    labels = [
        {"image_id": image["image_id"], "findings": [], "targets": [None if np.isnan(x) else x for x in row]}
        for image, row in zip(images, targets, strict=True)
    ]
    tables = {IMAGES: images, LABELS: labels, BOXES: boxes, QUARANTINE: quarantine}
    versions = {
        name: lake.write(name, pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])) for name, rows in tables.items()
    }
    frontal = np.array([image["view"] != "lateral" for image in images], bool)
    positive = (targets[frontal] == 1).astype(int)
    positives = positive.sum(axis=0)
    copied = tuple((str(image["image_id"]), "no such image") for image in images[:1])
    snapshot = Snapshot(
        snapshot_id="0123456789ab",
        built_at=now(),
        source="test",
        fingerprint="f",
        vocabulary=tuple(vocabulary),
        versions=versions,
        accounting=accounting if accounting is not None else {"entries": len(images), "gold": len(images)},
        splits={split: count_split(split, images, targets, vocabulary) for split in SPLITS},
        pos_weight=tuple(((len(positive) - positives) / np.maximum(positives, 1)).tolist()),
        cooccurrence=tuple(tuple(row) for row in (positive.T @ positive).tolist()),
        pixel_mean=pixel_mean,
        pixel_std=0.25,
        synthetic=synthetic,
        guesses=("test: classes by folder: a (2) (source.classes)",),
        remarks=(
            Remark("views agree (sanity.contradicted_views)", warns=False),
            Remark("1 of 2 are copies of an image (sanity.copied_images)", warns=True, examples=copied),
        ),
    )
    lake.publish(snapshot)
    return lake, lake.find_snapshot()


def count_split(split: str, images: Rows, targets: NDArray[np.float64], vocabulary: Sequence[str]) -> dict[str, Any]:
    """The counts of a split as a snapshot holds them."""
    member = np.array([image["split"] == split for image in images], bool)
    frontal = np.array([image["view"] != "lateral" for image in images], bool)
    values = targets[member & frontal]
    positives, known = (values == 1).sum(axis=0), np.isfinite(values).sum(axis=0)
    return {
        "images": len(values),
        "laterals": int((member & ~frontal).sum()),
        "patients": len({image["patient_id"] for image in images if image["split"] == split}),
        "positives": dict(zip(vocabulary, positives.tolist(), strict=True)),
        "prevalence": dict(zip(vocabulary, (positives / np.maximum(known, 1)).tolist(), strict=True)),
    }


def make_row(at: int, targets: Sequence[float], path: Path | None = None, **changes: Any) -> dict[str, Any]:
    """A row of gold/images, with measurements of the file if there is one."""
    row = {
        "image_id": f"image_{at:03d}",
        "source": "test",
        "patient_id": f"p{at // 2}",
        "age_years": 20.0 + at % 60,
        "sex": "MF"[at % 2],
        "view": ("PA", "AP", "lateral")[at % 3],
        "split": SPLITS[(at % 10) // 4],
        "targets": targets,
    }
    if path is not None:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        row |= {"path": str(path), "height": grey.shape[0], "width": grey.shape[1], "channels": 1}
        row |= {"bytes": path.stat().st_size, "sha256": f"{at:064x}"}
        row |= {"pixel_mean": grey.mean() / 255, "pixel_std": grey.std() / 255}
    return {**row, **changes}


def write_png(path: Path, height: int, width: int, grey: int = 128) -> Path:
    """Write an image of one grey value."""
    assert cv2.imwrite(str(path), np.full((height, width), grey, np.uint8))
    return path
