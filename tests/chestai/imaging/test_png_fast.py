"""Grey PNG with the compiled kernel: the same pixels, the same refusals, the same reasons as by OpenCV."""

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chestai.imaging import png
from chestai.imaging.fast_png import kernel
from chestai.imaging.fast_png.decode import decode_regular
from tests.chestai.imaging.conftest import Build
from tests.serve.support.forgery import encode_image
from tests.support.grey_pngs import agree, decode, decode_by_opencv, make_case, make_file, make_rows, pack, same, split
from tests.support.pngs import make_chunk

Grey = np.ndarray


@pytest.fixture(scope="module", autouse=True)
def with_kernel(build: Build) -> None:
    assert kernel.find() is not None


@pytest.fixture
def answers() -> Iterator[list[bool]]:
    """For each file that could be regular: whether the kernel decoded it."""
    found: list[bool] = []

    def watched(*arguments: object) -> Grey | None:
        grey = decode_regular(*arguments)  # type: ignore[arg-type]
        found.append(grey is not None)
        return grey

    with mock.patch.object(png, "decode_regular", watched):
        yield found


@settings(deadline=None, max_examples=60)
@given(
    width=st.one_of(st.integers(1, 140), st.integers(1, 2000)),
    height=st.integers(1, 140),
    kinds=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    seed=st.integers(0, 9999),
)
@example(width=1, height=1, kinds=[4], seed=0)
@example(width=1, height=64, kinds=[3, 4], seed=0)
@example(width=2000, height=63, kinds=[4], seed=0)
@example(width=63, height=127, kinds=[4, 3], seed=0)
@example(width=65, height=126, kinds=[0, 1, 2, 3, 4], seed=0)
def test_every_filter_and_width(width: int, height: int, kinds: list[int], seed: int) -> None:
    random = Random(seed)
    packed = pack(random, make_rows(random, height, width, kinds))
    bodies = split(random, packed, random.choice((1, 3, 40)))
    expected = cv2.imdecode(np.frombuffer(make_file(height, width, bodies), np.uint8), cv2.IMREAD_GRAYSCALE)
    grey = decode_regular(width, height, bodies)
    assert grey is not None and expected is not None and grey.dtype == np.uint8
    assert np.array_equal(grey, expected)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32))
def test_whole_and_broken_files_get_the_same_answer(seed: int) -> None:
    assert agree(make_case(Random(seed)))


@pytest.mark.parametrize("kind", [3, 4])
def test_millions_of_neighbours(kind: int) -> None:
    """Four million random triples of left, above and corner, of the 17 million that there are."""
    rows = np.random.default_rng(kind).integers(0, 256, (2000, 2001), np.uint8)
    rows[:, 0] = kind
    data = make_file(2000, 2000, [zlib.compress(rows.tobytes(), 0)])
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert same(decode(data), np.asarray(expected, np.uint8))


def test_kernel_decodes_what_encoders_write(answers: list[bool]) -> None:
    random, rows = Random(5), make_rows(Random(4), 90, 80)
    packed = pack(random, rows)
    text = make_chunk(b"tEXt", b"a\0b") + make_chunk(b"gAMA", b"\0\0\xb1\x8f")
    decode(encode_image(np.ascontiguousarray(rows)))  # libpng writes a window of 8 KiB
    decode(make_file(90, 80, [packed]))
    decode(make_file(90, 80, split(random, packed, 50), text) + b"\0\r\n")
    assert answers == [True] * 3


RAW = make_rows(Random(1), 40, 50).tobytes()  # of 2,040 bytes
PACKED = zlib.compress(RAW)
SMALL_WINDOW = zlib.compressobj(6, zlib.DEFLATED, 9)
UNUSUAL = {
    "empty chunk": make_file(40, 50, [PACKED, b""]),
    "data behind the stream": make_file(40, 50, [PACKED + b"x"]),
    "data behind the stream in a chunk of their own": make_file(40, 50, [PACKED, b"x"]),
    "no Adler-32": make_file(40, 50, [PACKED[:-4]]),
    "wrong Adler-32": make_file(40, 50, [PACKED[:-1] + bytes([PACKED[-1] ^ 1])]),
    "cut": make_file(40, 50, [PACKED[:-40]]),
    "one byte too few": make_file(40, 50, [zlib.compress(RAW[:-1])]),
    "one byte too many": make_file(40, 50, [zlib.compress(RAW + b"x")]),
    "a row too many": make_file(40, 50, [zlib.compress(RAW + RAW[:51])]),
    "unknown filter": make_file(40, 50, [zlib.compress(RAW[:51] + b"\5" + RAW[52:])]),
    "small window": make_file(40, 50, [SMALL_WINDOW.compress(RAW) + SMALL_WINDOW.flush()]),
    "no stream": make_file(40, 50, [b"x"]),
    "impossible window": make_file(40, 50, [b"\x88\x1c" + PACKED[2:]]),
    "other method": make_file(40, 50, [b"\x77\x1e" + PACKED[2:]]),
    "preset dictionary": make_file(40, 50, [b"\x78\xbb" + PACKED[2:]]),
    "much longer than its pixels": make_file(40, 50, [PACKED[:2] + b"\0\0\0\xff\xff" * 20_000 + PACKED[2:]]),
}
OTHER = {
    "transparent grey": make_file(40, 50, [PACKED], make_chunk(b"tRNS", b"\0\7")),
    "palette": make_file(40, 50, [PACKED], make_chunk(b"PLTE", bytes(range(256)) * 3), b"\x08\3\0\0\0"),
    "palette beside grey": make_file(40, 50, [PACKED], make_chunk(b"PLTE", bytes(range(256)) * 3)),
    "interlaced": make_file(40, 50, [PACKED], header=b"\x08\0\0\0\1"),
    "four bits": make_file(40, 50, [PACKED], header=b"\x04\0\0\0\0"),
    "wrong CRC": make_file(40, 50, [PACKED])[:-20] + b"x" + make_file(40, 50, [PACKED])[-19:],
}


@pytest.mark.parametrize("name", [*UNUSUAL, *OTHER])
def test_opencv_decides_what_is_unusual(name: str, answers: list[bool]) -> None:
    data = {**UNUSUAL, **OTHER}[name]
    assert same(decode(data), decode_by_opencv(data))
    assert answers == ([False] if name in UNUSUAL else [])


def test_bomb_is_refused_as_before(answers: list[bool]) -> None:
    """More packed pixels than go unchecked, and they inflate to far more than the picture needs."""
    noise = np.random.default_rng(0).bytes(png.UNCHECKED + 1000)
    data = make_file(1100, 1100, [zlib.compress(noise + bytes(2**24))])
    assert decode(data) == decode_by_opencv(data)
    assert isinstance(answer := decode(data), tuple) and answer[0] == "too_large"
    assert answers == [False] * 2


def test_incomplete_huffman_code_is_the_one_thing_that_isal_forgives() -> None:
    """A stream that zlib refuses though it says what its pixels are: its code has words to spare.

    No encoder writes such a code, and the pixels are what the Adler-32 says. All other faults of a stream that are in
    RFC 1951 are refused by both; this test tells when ISA-L learns of this one too.
    """
    raw = bytes(32 * 33)
    # One dynamic block, its words lowest bit first: literal 0 and the end of the block have two bits each.
    lengths = [2, *[0] * 255, 2, 0]
    bits = [1, 0, 1, 0, 0, 0, 0, 0, *[0] * 5, 1, 1, 1, 1]
    for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):  # each of 0 to 15 has four bits
        bits += (0, 0, 1) if symbol < 16 else (0, 0, 0)
    for length in lengths:
        bits += [length >> at & 1 for at in (3, 2, 1, 0)]
    bits += [0, 0] * len(raw) + [0, 1]
    packed = b"\x78\x9c" + np.packbits(bits, bitorder="little").tobytes() + struct.pack(">I", zlib.adler32(raw))
    with pytest.raises(zlib.error, match="invalid literal/lengths set"):
        zlib.decompress(packed)
    data = make_file(32, 32, [packed])
    assert decode_by_opencv(data) == ("undecodable", "the PNG data are damaged")
    assert same(decode(data), np.zeros((32, 32), np.uint8)) and agree(data)


def test_threads_do_not_share_their_memory() -> None:
    random = Random(7)
    files = []
    for width in (40, 700, 90, 300):
        rows = make_rows(random, 200, width)
        files.append(make_file(200, width, [pack(random, rows)]))
    expected = [decode_by_opencv(data) for data in files]
    with ThreadPoolExecutor(4) as threads:
        for answer, wanted in zip(threads.map(decode, files * 25), expected * 25, strict=True):
            assert same(answer, wanted)


def test_decoded_pixels_are_the_callers() -> None:
    first = decode(encode_image(np.full((40, 50), 7, np.uint8)))
    assert isinstance(first, np.ndarray) and first.flags.writeable and first.flags.c_contiguous
    decode(encode_image(np.full((40, 50), 9, np.uint8)))
    assert (first == 7).all()


def test_every_nih_original(nih_root: Path, answers: list[bool]) -> None:
    files = [path.read_bytes() for path in sorted((nih_root / "images").glob("*.png"))]
    ours = [decode(data) for data in files]
    assert answers == [True] * 229  # the four others are RGBA
    for data, grey in zip(files, ours, strict=True):
        assert same(grey, decode_by_opencv(data))
