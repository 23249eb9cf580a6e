"""Builds PNG files chunk by chunk."""

import zlib

IEND_BYTES = len(b"\0\0\0\0IEND") + 4  # length of the last chunk in bytes


def make_chunk(kind: bytes, body: bytes = b"") -> bytes:
    """Make a chunk with its length and CRC (PNG specification, 5.3)."""
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def add_comment(png: bytes, comment: str) -> bytes:
    """Add a comment: the picture stays the same, the content of the file does not."""
    return png[:-IEND_BYTES] + make_chunk(b"tEXt", b"Comment\0" + comment.encode("latin-1")) + png[-IEND_BYTES:]
