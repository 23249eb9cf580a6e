"""Files -> pixels in Ray tasks. Apart from what needs torch, which would cost each of these workers half a GiB."""

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import pyarrow as pa
import ray
from pyarrow import fs, parquet

from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.lake.files import read_bytes
from chestai.lake.schemas import FILE_MISSING
from chestai.monitoring.ood_detector import OodDetector
from pipelines.data.digest_set import Digests, digest, has

PIECE = 64  # files whose pixels a task holds before it hands them on
MOST_BYTES = 2**30  # of a file; the largest image that `pixels` takes is far smaller, whatever its format

# What reading makes of a file. row: its place in the corpus. pixels: null where there is nothing to forward: it could
# not be read, or its content is scored already. sha256: null where its bytes could not be read. not_scored: a word of
# `errors.REASONS` or `monitoring.ood_detector.REASONS`, or FILE_MISSING; null where it was read. detail: for a person.
READ = pa.schema(
    {
        "row": pa.int64(),
        "sha256": pa.string(),
        "not_scored": pa.string(),
        "detail": pa.string(),
        "pixels": pa.binary(),
    }
)


def decode(paths: Sequence[str], size: int) -> tuple[list[bytes | None], list[str | None]]:
    """Read, decode and resize files.

    Returns:
        Per path, `size * size` bytes of `uint8` pixels or None; and None or why it could not be read: one of
        `chestai.imaging.errors.REASONS`, or `chestai.lake.lake.FILE_MISSING`.
    """
    cv2.setNumThreads(1)  # Ray runs a task a core; OpenCV's own threads would only get in their way
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


def decode_rows(rows: pa.Table, size: int) -> pa.Table:
    """Rows with a `path` -> instead of it `pixels` (null where unreadable) and `not_scored` (why; null where read)."""
    images, reasons = decode(rows["path"].to_pylist(), size)
    decoded = rows.drop_columns("path").append_column("pixels", pa.array(images, pa.binary()))
    return decoded.append_column("not_scored", pa.array(reasons, pa.string()))


def read_rows(rows: pa.Table, size: int, known: ray.ObjectRef, gate: ray.ObjectRef) -> Iterator[pa.Table]:
    """Rows with `row`, `path`, `bytes` -> `READ` in pieces, whatever is in the files.

    Args:
        known: of the `Digests` set of contents that need no decoding.
        gate: of the `Intake` that refuses what is no chest radiograph, or of None.
    """
    cv2.setNumThreads(1)
    scored, intake = ray.get(known), ray.get(gate)
    for at in range(0, rows.num_rows, PIECE):
        piece = rows.slice(at, PIECE).to_pylist()
        found = [{"row": one["row"]} | _read(one["path"], one["bytes"], size, scored, intake) for one in piece]
        yield pa.Table.from_pylist(found, schema=READ)


def _read(path: str, length: int | None, size: int, scored: Digests, intake: OodDetector | None) -> dict[str, object]:
    if length is not None and length > MOST_BYTES:
        return {"not_scored": "too_large", "detail": f"{length} bytes; the limit is {MOST_BYTES}"}
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:  # Arrow raises the latter for a name that makes no URI
        return {"not_scored": FILE_MISSING, "detail": " ".join(str(error).split())}
    sha256 = hashlib.sha256(data)
    read: dict[str, object] = {"sha256": sha256.hexdigest()}
    if has(scored, digest(sha256.digest()))[0]:
        return read
    try:
        square = preprocess.load(data, size)
        refusal = None if intake is None else intake.check(square)
        if refusal is not None:
            return {**read, "not_scored": refusal.reason, "detail": refusal.detail}
        return {**read, "pixels": square.tobytes()}
    except Unreadable as error:
        return {**read, "not_scored": error.reason, "detail": error.detail}
    except Exception as error:  # a decoder's own: one file must not stop millions
        return {**read, "not_scored": "undecodable", "detail": f"{type(error).__name__}: {error}"}


def read_shard(rows: pa.Table) -> pa.Table:
    """Rows of one file of the pixel cache, `row`, `image_id`, `sha256`, `uri` -> `READ`, in the file's order."""
    filesystem, path = fs.FileSystem.from_uri(rows["uri"][0].as_py())
    with parquet.ParquetFile(path, filesystem=filesystem) as file:
        stored = file.read(columns=["image_id", "unread", "pixels"], use_threads=False)
    wanted = {one["image_id"]: one for one in rows.to_pylist()}
    found = [
        {
            "row": wanted[image_id]["row"],
            "sha256": wanted[image_id]["sha256"],
            "not_scored": unread,
            "pixels": image if unread is None else None,
        }
        for image_id, unread, image in zip(*(one.to_pylist() for one in stored.columns), strict=True)
        if image_id in wanted
    ]
    return pa.Table.from_pylist(found, schema=READ)
