"""Files -> pixels in Ray tasks. Apart from what needs torch, which would cost each of these workers half a GiB."""

from collections.abc import Sequence

import cv2
import pyarrow as pa

from chestai import pixels
from chestai.lake import FILE_MISSING, read_bytes


def decode(paths: Sequence[str], size: int) -> tuple[list[bytes | None], list[str | None]]:
    """Read, decode and resize files.

    Returns:
        Per path, `size * size` bytes of `uint8` pixels or None; and None or why it could not be read: one of
        `chestai.pixels.REASONS`, or `chestai.lake.FILE_MISSING`.
    """
    cv2.setNumThreads(1)  # Ray runs a task a core; OpenCV's own threads would only get in their way
    images: list[bytes | None] = []
    reasons: list[str | None] = []
    for path in paths:
        image, reason = None, None
        try:
            image = pixels.load(read_bytes(path), size).tobytes()
        except pixels.Unreadable as error:
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
