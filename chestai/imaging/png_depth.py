"""16-bit PNG: how many bits of a sample the image uses, which many writers leave to the reader to find out."""

import numpy as np
from numpy.typing import NDArray

from chestai.imaging.errors import Unreadable

LEAST_PEAK = 2**14  # of 16 bits: below it at most 64 of 256 grey levels would be left
LEAST_BULK = 2**9  # below it, the values may be of 8 bits or of a dark image of more
DEPTHS = (10, 12, 14)  # bits of detectors


def find_significant_bits(data: bytes) -> int | None:
    """The significant bits of a sample by the chunk sBIT (PNG specification, 11.3.2.5), the least of all channels."""
    at = 8
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) not in (b"IDAT", b"IEND"):
        length = int.from_bytes(data[at : at + 4], "big")
        if kind == b"sBIT":
            bits = min(data[at + 8 : at + 8 + length], default=0)
            return bits if 1 <= bits <= 16 else None
        at += 12 + length
    return None


def find_full_scale(values: NDArray[np.uint16], significant: int | None) -> int:
    """The value that is white in a 16-bit image.

    65535, unless the values lie in the lower bits: then it follows from sBIT, or from the least depth of a detector
    that holds them. Single values at the top of the range, such as a burnt-in marker's, do not count.

    Raises:
        Unreadable: Most values are below a quarter of the range, and nothing says of how many bits they are.
    """
    peak = int(values.max())
    if significant is not None and 8 <= significant < 16 and 0 < peak < 2**significant:
        return 2**significant - 1
    marked = values == peak
    below = int(np.where(marked, 0, values).max())
    bulk = below if peak >= LEAST_PEAK > below and 2 * int(marked.sum()) < values.size else peak
    if bulk == 0 or bulk >= LEAST_PEAK:
        return 65535
    if bulk >= LEAST_BULK:
        return 2 ** next(bits for bits in DEPTHS if bulk < 2**bits) - 1
    raise Unreadable(
        "unsupported_format",
        f"the 16-bit PNG has no value above {bulk} of 65535: scale it to its range, or write 8 bits or the chunk sBIT",
    )
