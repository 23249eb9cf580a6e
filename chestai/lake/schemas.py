"""Names and schemas of the gold tables."""

from collections.abc import Mapping

import pyarrow as pa

IMAGES = "gold/images"
LABELS = "gold/labels"
BOXES = "gold/boxes"
QUARANTINE = "gold/quarantine"
STATS = "gold/stats"

FILE_MISSING = "file_missing"

# `chestai.lake.remark.Remark`.
REMARK = pa.struct({"text": pa.string(), "warns": pa.bool_(), "examples": pa.list_(pa.list_(pa.string()))})

# images: `pixel_mean` and `pixel_std` describe the single image, in units of full scale. Without a file
#   (`source.images=optional`), the path and everything read from the file is null.
# labels: `uncertain` lists the findings that the source labels uncertain, whatever their `targets`. Builds of earlier
#   releases lack this column.
# stats: builds of earlier releases lack `guesses` or `remarks`.
# quarantine: `item` is the rejected path or source row.
SCHEMAS: Mapping[str, pa.Schema] = {
    IMAGES: pa.schema(
        {
            "image_id": pa.string(),
            "path": pa.string(),
            "source": pa.string(),
            "patient_id": pa.string(),
            "study_id": pa.string(),
            "age_years": pa.float32(),
            "sex": pa.string(),
            "view": pa.string(),
            "height": pa.int32(),
            "width": pa.int32(),
            "channels": pa.int32(),
            "bytes": pa.int64(),
            "sha256": pa.string(),
            "pixel_mean": pa.float64(),
            "pixel_std": pa.float64(),
            "split": pa.string(),
        }
    ),
    LABELS: pa.schema(
        {
            "image_id": pa.string(),
            "findings": pa.list_(pa.string()),
            "targets": pa.list_(pa.float32()),
            "uncertain": pa.list_(pa.string()),
        }
    ),
    BOXES: pa.schema(
        {
            "image_id": pa.string(),
            "finding": pa.string(),
            "x": pa.float32(),
            "y": pa.float32(),
            "w": pa.float32(),
            "h": pa.float32(),
        }
    ),
    QUARANTINE: pa.schema(
        {
            "item": pa.string(),
            "stage": pa.string(),
            "reason": pa.string(),
            "detail": pa.string(),
        }
    ),
    STATS: pa.schema(
        {
            "snapshot_id": pa.string(),
            "built_at": pa.timestamp("us", tz="UTC"),
            "source": pa.string(),
            "fingerprint": pa.string(),
            "vocabulary": pa.list_(pa.string()),
            "versions": pa.string(),
            "accounting": pa.string(),
            "splits": pa.string(),
            "pos_weight": pa.list_(pa.float64()),
            "cooccurrence": pa.list_(pa.list_(pa.int64())),
            "pixel_mean": pa.float64(),
            "pixel_std": pa.float64(),
            "synthetic": pa.bool_(),
            "guesses": pa.list_(pa.string()),
            "remarks": pa.list_(REMARK),
        }
    ),
}
