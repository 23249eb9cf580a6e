"""Makes grey PNG files of any filters, chunks and faults, and decodes them with and without the compiled kernel."""

import re
import struct
import zlib
from collections.abc import Sequence
from random import Random
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from chestai.imaging import png, preprocess
from chestai.imaging.errors import Unreadable
from tests.support.pngs import make_chunk

Grey = NDArray[np.uint8]
Answer = Grey | tuple[str, str]


def make_rows(random: Random, height: int, width: int, kinds: Sequence[int] = range(5)) -> Grey:
    """Filtered rows of any content, uint8 (H, 1 + W); their filter types are drawn from `kinds`."""
    rows = np.frombuffer(random.randbytes(height * (1 + width)), np.uint8).reshape(height, 1 + width).copy()
    if random.random() < 0.5:  # small differences, as of films
        rows = (rows.view(np.int8) // 32).view(np.uint8)
    rows[:, 0] = [random.choice(kinds) for _ in range(height)]
    return rows


def make_file(height: int, width: int, bodies: Sequence[bytes], middle: bytes = b"", header: bytes = b"") -> bytes:
    """A file with the given bodies of pixel chunks, and chunks before them.

    Args:
        header: The last five bytes of the header; by default of 8 bits, grey, not interlaced.
    """
    head = struct.pack(">II", width, height) + (header or b"\x08\0\0\0\0")
    pixels = b"".join(make_chunk(b"IDAT", body) for body in bodies)
    return png.SIGNATURE + make_chunk(b"IHDR", head) + middle + pixels + make_chunk(b"IEND")


def split(random: Random, packed: bytes, pieces: int) -> list[bytes]:
    """Cuts bytes into pieces, none of them empty."""
    cuts = sorted(random.sample(range(1, len(packed)), min(pieces, len(packed)) - 1))
    return [packed[start:end] for start, end in zip([0, *cuts], [*cuts, len(packed)], strict=True)]


def pack(random: Random, rows: Grey | bytes) -> bytes:
    """Packs rows in one of the ways of encoders."""
    strategy = random.choice((zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED))
    packer = zlib.compressobj(random.randrange(10), zlib.DEFLATED, 15, random.randint(1, 9), strategy)
    return packer.compress(bytes(rows)) + packer.flush()


def decode(data: bytes) -> Answer:
    """Decodes a file to its pixels or its reason and detail."""
    try:
        return preprocess.decode(data)
    except Unreadable as error:
        return error.reason, error.detail


def decode_by_opencv(data: bytes) -> Answer:
    """`decode` as it is where there is no kernel."""
    with mock.patch.object(png, "decode_regular", return_value=None):
        return decode(data)


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers are equal in all: pixels and their type, or reason and detail."""
    if isinstance(one, tuple) or isinstance(other, tuple):
        return isinstance(one, tuple) and isinstance(other, tuple) and one == other
    return one.dtype == other.dtype and np.array_equal(one, other)


def agree(data: bytes) -> bool:
    """Whether a file gets the same answer with the kernel and without, but for what only ISA-L forgives.

    zlib refuses a block whose Huffman code has words to spare. ISA-L reads it; the Adler-32 then says if all is well.
    """
    ours, theirs = decode(data), decode_by_opencv(data)
    if same(ours, theirs):
        return True
    if isinstance(ours, tuple) or theirs != ("undecodable", "the PNG data are damaged"):
        return False
    try:
        zlib.decompress(b"".join(png.split_png(data).pixels))
    except zlib.error as error:
        return re.search(r"invalid (literal/lengths|distances|code lengths) set", str(error)) is not None
    return False


def make_case(random: Random) -> bytes:
    """A file of any size, filters and chunks, in half of the cases with something wrong or unusual about it."""
    height, width = random.randint(32, 150), random.choice((random.randint(32, 150), random.randint(150, 2000)))
    rows = make_rows(random, height, width)
    if random.random() < 0.5:
        return make_file(height, width, split(random, pack(random, rows), random.choice((1, 1, 2, 5, 50))))
    middle, header = b"", b""
    fault = random.randrange(16)
    if fault == 0:
        rows[random.randrange(height), 0] = random.choice((5, 64, 255))
    raw = bytes(rows)
    if fault == 1:
        raw = raw[: -random.randint(1, width)]
    elif fault == 2:
        raw += random.randbytes(random.choice((1, width, width + 1, 3 * width)))
    packed = pack(random, raw)
    if fault == 3:
        packed = packed[: -random.randint(1, 9)]
    elif fault == 4:
        packed += random.randbytes(random.randint(1, 9))
    elif fault == 5:
        packed = packed[:-4] + random.randbytes(4)
    elif fault == 6:
        at = random.randrange(len(packed))
        packed = packed[:at] + bytes([packed[at] ^ 1 << random.randrange(8)]) + packed[at + 1 :]
    elif fault == 7:
        packer = zlib.compressobj(6, zlib.DEFLATED, random.randint(9, 14))
        packed = packer.compress(raw) + packer.flush()
    elif fault == 8:
        header = random.choice((b"\x08\0\0\0\1", b"\x04\0\0\0\0", b"\x10\0\0\0\0", b"\x08\3\0\0\0", b"\x08\2\0\0\0"))
    elif fault == 9:
        middle = make_chunk(b"tRNS", b"\0" + random.randbytes(1))
    elif fault == 10:
        middle = make_chunk(b"PLTE", random.randbytes(768))
    elif fault == 11:
        middle = make_chunk(random.choice((b"gAMA", b"tEXt", b"sBIT", b"bKGD")), random.randbytes(4))
    bodies = split(random, packed, random.choice((1, 1, 2, 5, 50)))
    if fault == 12:
        bodies.insert(random.randrange(len(bodies) + 1), b"")
    data = make_file(height, width, bodies, middle, header)
    if fault == 13:
        at = random.randrange(len(data))
        data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
    elif fault == 14:
        data = data[: random.randrange(len(data))]
    elif fault == 15:
        data += random.choice((b"\0\0", b"x", data, random.randbytes(20)))
    return data
