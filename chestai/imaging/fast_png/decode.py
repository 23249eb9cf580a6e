"""Decodes a perfectly regular 8-bit grey PNG: ISA-L inflates it, the compiled kernel takes the filters off.

Whatever is unusual in the least is left to OpenCV, which alone decides what is refused and why: so there is one answer
to every file, with the kernel and without. One exception no encoder makes: ISA-L reads a block whose Huffman code has
words to spare, which zlib refuses. Its pixels are then those that the Adler-32 vouches for.
"""

from collections.abc import Sequence

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from chestai.imaging.fast_png import kernel
from chestai.imaging.fast_png.workspace import Workspace

MAX_SIDE = 65_535  # libpng's own limit is a million
LAST_FILTER = 4
MAX_WINDOW = 2**15  # bytes
PIECE = 2**14  # bytes to inflate at a time; what comes of them stays in the cache
SLACK = 2**16  # bytes, besides a hundredth, by which packed pixels may outgrow unpacked ones; libpng limits that too

_rows = Workspace()


def decode_regular(
    width: int, height: int, packed: Sequence[bytes | memoryview], unfilter: kernel.Unfilter | None = None
) -> NDArray[np.uint8] | None:
    """Decodes the pixels of an 8-bit grey picture without interlacing and transparency.

    Args:
        packed: The bodies of all IDAT chunks, whose CRCs are right.
        unfilter: The kernel; by default this process's.

    Returns:
        uint8 (height, width); or None if anything is not as encoders write it, or there is no kernel.
    """
    size = height * (1 + width)
    if max(width, height) > MAX_SIDE or not all(packed) or sum(map(len, packed)) > size + size // 100 + SLACK:
        return None
    unfilter = unfilter or kernel.find()
    if unfilter is None:
        return None
    rows = _rows.take(size)
    if not _inflate(packed, rows):
        return None
    rows = rows.reshape(height, 1 + width)
    if rows[:, 0].max() > LAST_FILTER:
        return None
    return unfilter(rows)


def _inflate(packed: Sequence[bytes | memoryview], target: NDArray[np.uint8]) -> bool:
    """Inflates a zlib stream. Returns whether it fills the target and is whole, with nothing behind it."""
    if not _has_usual_header(b"".join(bytes(body[:2]) for body in packed[:2]), len(target)):
        return False
    inflater, view, done = isal_zlib.decompressobj(), target.data, 0
    for body in packed:
        for at in range(0, len(body), PIECE):
            if inflater.eof:
                return False
            try:
                inflated = inflater.decompress(body[at : at + PIECE], len(view) - done + 1)
            except Exception:  # `isal_zlib.error`, which its own stubs declare as no class: the stream is damaged
                return False
            end = done + len(inflated)
            if end > len(view) or inflater.unconsumed_tail:
                return False
            view[done:end] = inflated
            done = end
    return done == len(view) and inflater.eof and not inflater.unused_data


def _has_usual_header(start: bytes, size: int) -> bool:
    """Whether a stream begins as PNG wants it (RFC 1950, 2.2), with a window that no reference can reach beyond.

    Decoders differ in what they make of references beyond the window. libpng writes a small one for small pictures.
    """
    if len(start) < 2:
        return False
    method, flags = start[0], start[1]
    window = 2 ** (8 + (method >> 4))
    usual = method & 15 == 8 and not flags & 32 and (256 * method + flags) % 31 == 0  # deflate, without a dictionary
    return usual and min(size, MAX_WINDOW) <= window <= MAX_WINDOW
