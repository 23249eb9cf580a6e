"""Decodes files into pixels in Ray tasks. Imports no torch, which would cost each of these workers half a GiB."""

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import pyarrow as pa
import ray
from pyarrow import parquet

from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.lake.files import explain_unreadable, read_bytes, resolve
from chestai.lake.schemas import FILE_MISSING
from chestai.monitoring.ood_detector import OodDetector
from pipelines.data.digest_set import Digests, contains, make_digest

FILES_PER_BLOCK = 64  # files whose pixels a task holds before it hands them on
MAX_FILE_BYTES = 2**30  # of a file; the largest image that `pixels` takes is far smaller, whatever its format

# A file that was read. row: its index in the corpus. pixels: null if it could not be read or its content is scored
# already. sha256: null if its bytes could not be read. not_scored: null, or one of `chestai.imaging.errors.REASONS`,
# `chestai.monitoring.ood_detector.REASONS` or FILE_MISSING. detail: for a person.
DECODED_FILE = pa.schema(
    {
        "row": pa.int64(),
        "sha256": pa.string(),
        "not_scored": pa.string(),
        "detail": pa.string(),
        "pixels": pa.binary(),
    }
)


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
    digest_set, ood_detector = ray.get(scored), ray.get(detector)
    for at in range(0, rows.num_rows, FILES_PER_BLOCK):
        block = rows.slice(at, FILES_PER_BLOCK).to_pylist()
        decoded = [
            {"row": row["row"]} | _read_file(row["path"], row["bytes"], size, digest_set, ood_detector) for row in block
        ]
        yield pa.Table.from_pylist(decoded, schema=DECODED_FILE)


def _read_file(
    path: str, length: int | None, size: int, scored: Digests, detector: OodDetector | None
) -> dict[str, object]:
    """Reads one file into a row of `DECODED_FILE`, without `row`."""
    if length is not None and length > MAX_FILE_BYTES:
        return {"not_scored": "too_large", "detail": f"{length} bytes; the limit is {MAX_FILE_BYTES}"}
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:  # Arrow raises ValueError for a name that makes no URI
        return {"not_scored": FILE_MISSING, "detail": explain_unreadable(path, error)}
    sha256 = hashlib.sha256(data)
    read: dict[str, object] = {"sha256": sha256.hexdigest()}
    if contains(scored, make_digest(sha256.digest()))[0]:
        return read
    try:
        square = preprocess.load(data, size)
        rejection = None if detector is None else detector.check(square)
        if rejection is not None:
            return {**read, "not_scored": rejection.reason, "detail": rejection.detail}
        return {**read, "pixels": square.tobytes()}
    except Unreadable as error:
        return {**read, "not_scored": error.reason, "detail": error.detail}
    except Exception as error:  # of a decoder: one file must not stop millions
        return {**read, "not_scored": "undecodable", "detail": f"{type(error).__name__}: {error}"}


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
