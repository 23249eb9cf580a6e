"""Decodes files into pixels in Ray tasks. Imports no torch, which would cost each of these workers half a GiB."""

from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import pyarrow as pa
import ray
from pyarrow import parquet

from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.lake.files import read_bytes, resolve
from chestai.lake.schemas import FILE_MISSING
from pipelines.data.decoded_file import DECODED_FILE, read_file

FILES_PER_BLOCK = 64  # files whose pixels a task holds before it hands them on


def decode_files(paths: Sequence[str], size: int) -> tuple[list[bytes | None], list[str | None]]:
    """Reads, decodes and resizes files.

    Returns:
        Per path, size * size bytes of uint8 pixels or None; and per path, None or the reason why it could not be read:
        one of `chestai.imaging.errors.REASONS`, or `chestai.lake.schemas.FILE_MISSING`.
    """
    cv2.setNumThreads(1)  # Ray runs one task per core, and OpenCV's own threads would compete with them
    images: list[bytes | None] = []
    reasons: list[str | None] = []
    for path in paths:
        image, reason = None, None
        try:
            image = preprocess.load(read_bytes(path), size).tobytes()
        except Unreadable as error:
            reason = error.reason
        except OSError:
            reason = FILE_MISSING
        images.append(image)
        reasons.append(reason)
    return images, reasons


def decode_table(rows: pa.Table, size: int) -> pa.Table:
    """Replaces the column `path` by `pixels` (null if unreadable) and `not_scored` (the reason; null if read)."""
    images, reasons = decode_files(rows["path"].to_pylist(), size)
    decoded = rows.drop_columns("path").append_column("pixels", pa.array(images, pa.binary()))
    return decoded.append_column("not_scored", pa.array(reasons, pa.string()))


def read_files(rows: pa.Table, size: int, scored: ray.ObjectRef, detector: ray.ObjectRef) -> Iterator[pa.Table]:
    """Reads and decodes files in blocks, whatever is in them.

    Args:
        rows: `row`, `path`, `bytes` (null if unknown).
        scored: Reference to the `Digests` set of contents that need no decoding.
        detector: Reference to the `OodDetector` that rejects what is not a chest radiograph, or to None.

    Yields:
        Tables of `DECODED_FILE`.
    """
    cv2.setNumThreads(1)
    digest_set, ood_detector, load = ray.get(scored), ray.get(detector), partial(preprocess.load, size=size)
    for at in range(0, rows.num_rows, FILES_PER_BLOCK):
        block = rows.slice(at, FILES_PER_BLOCK).to_pylist()
        decoded = [
            {"row": row["row"]} | read_file(row["path"], row["bytes"], load, digest_set, ood_detector) for row in block
        ]
        yield pa.Table.from_pylist(decoded, schema=DECODED_FILE)


def read_cached_shard(rows: pa.Table) -> pa.Table:
    """Reads one file of the pixel cache.

    Args:
        rows: The wanted rows: `row`, `image_id`, `sha256`, `uri`.

    Returns:
        `DECODED_FILE` in the file's order.
    """
    filesystem, path = resolve(rows["uri"][0].as_py())
    with parquet.ParquetFile(path, filesystem=filesystem) as file:
        stored = file.read(columns=["image_id", "unread", "pixels"], use_threads=False)
    row_of_image = {row["image_id"]: row for row in rows.to_pylist()}
    decoded = [
        {
            "row": row_of_image[image_id]["row"],
            "sha256": row_of_image[image_id]["sha256"],
            "not_scored": unread,
            "pixels": image if unread is None else None,
        }
        for image_id, unread, image in zip(*(column.to_pylist() for column in stored.columns), strict=True)
        if image_id in row_of_image
    ]
    return pa.Table.from_pylist(decoded, schema=DECODED_FILE)
