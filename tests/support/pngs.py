"""PNG files by hand."""

import zlib

IEND_BYTES = len(b"\0\0\0\0IEND") + 4  # bytes of the last chunk


def make_chunk(kind: bytes, body: bytes = b"") -> bytes:
    """A chunk with its length and CRC (PNG specification, 5.3)."""
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def add_comment(png: bytes, mark: str) -> bytes:
    """The same picture as another content: with a comment."""
    return png[:-IEND_BYTES] + make_chunk(b"tEXt", b"Comment\0" + mark.encode("latin-1")) + png[-IEND_BYTES:]
