"""PNG: what the decoder gets to see, and what is rejected by structure alone."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestai.imaging import png, preprocess
from chestai.imaging.errors import REASONS, Unreadable
from chestai.imaging.png import MAX_CHUNKS, clean_png
from tests.serve.support import forgery as made
from tests.serve.support.forgery import encode_image, make_ihdr, make_png
from tests.support.pngs import make_chunk

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
WHOLE = make_png(GREY)


def decode_by_opencv(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


def reason(data: bytes) -> str:
    with pytest.raises(Unreadable) as rejected:
        preprocess.decode(data)
    return rejected.value.reason


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(32, 70), st.integers(32, 70)),
    depth=st.sampled_from([np.uint8, np.uint16]),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 99),
)
def test_encoded_images_pass_unchanged(shape: tuple[int, int], depth: type, channels: int, seed: int) -> None:
    most = np.iinfo(depth).max
    image: np.ndarray = np.random.default_rng(seed).integers(0, most, (*shape, channels)).astype(depth)
    data = encode_image(image)
    assert clean_png(data) == data
    assert np.array_equal(preprocess.decode(data), decode_by_opencv(data))


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"acTL", b"viRu"])
def test_drops_chunks_without_pixels(kind: bytes) -> None:
    data = make_chunk(kind, b"\0\0\0\1" + zlib.compress(b"text"))
    assert clean_png(make_png(GREY, before=data, after=data * 3)) == WHOLE
    assert np.array_equal(preprocess.decode(make_png(GREY, before=data, after=data)), GREY)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80), st.sampled_from([png.SIGNATURE, WHOLE[:60], WHOLE[:-12]]))
def test_arbitrary_bytes_are_rejected_with_a_reason(data: bytes, start: bytes) -> None:
    assert reason(start + data) in REASONS


BODIES = st.one_of(
    st.tuples(
        st.just(b"IHDR"),
        st.builds(
            lambda width, height, rest: struct.pack(">II", width, height) + rest,
            st.sampled_from([32, 50, 64, 20_000]),
            st.sampled_from([32, 40, 64, 20_000]),
            st.sampled_from([b"\x08\0\0\0\0", b"\x08\0\0\0\0\0", b"\x10\0\0\0\0", b"\x08\3\0\0\0", b"\x08\0\0\0"]),
        ),
    ),
    st.tuples(st.sampled_from([b"PLTE", b"tRNS", b"tEXt", b"viRu", b"zTXt", b"gAMA"]), st.binary(max_size=12)),
    st.tuples(st.just(b"IDAT"), st.sampled_from([b"", zlib.compress(made.encode_rows(GREY)), b"\x78\x9c"])),
    st.tuples(st.just(b"IEND"), st.just(b"")),
)


@settings(deadline=None, max_examples=500)
@given(st.lists(BODIES, max_size=6), st.booleans())
def test_generated_containers_give_what_the_decoder_gives(chunks: list[tuple[bytes, bytes]], proper: bool) -> None:
    """Chunks in any order: what passes has the size and the pixels that OpenCV finds in the file as it came."""
    pixels = (b"IDAT", zlib.compress(made.encode_rows(GREY)))
    if proper:
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", 50, 40, 8, 0, 0, 0, 0)), *chunks, pixels, (b"IEND", b"")]
    data = png.SIGNATURE + b"".join(make_chunk(kind, body) for kind, body in chunks)
    try:
        grey = preprocess.decode(data)
    except Unreadable as error:
        assert error.reason in REASONS
    else:
        expected = decode_by_opencv(data)
        assert np.array_equal(grey, expected)


def test_rejects_header_that_does_not_come_first_and_once() -> None:
    bomb, body = make_ihdr(20_000, 20_000), WHOLE[len(png.SIGNATURE) :]
    before = make_chunk(b"viRu", struct.pack(">II", 50, 40) + bytes(5))
    assert reason(png.SIGNATURE + before + bomb + make_chunk(b"IDAT", made.make_zlib_bomb(4)) + make_chunk(b"IEND"))
    assert reason(png.SIGNATURE + before + body) == "not_an_image"
    assert reason(png.SIGNATURE + make_ihdr(50, 40) + bomb + body[25:]) == "not_an_image"
    longer = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 40, 8, 0, 0, 0, 0) + b"\0")
    assert reason(png.SIGNATURE + longer + body[25:]) == "not_an_image"
    assert reason(png.SIGNATURE + bomb + body[25:]) == "too_large"


def test_rejects_pixels_in_two_stretches_and_repeated_chunks() -> None:
    packed = zlib.compress(made.encode_rows(GREY))
    halves = make_chunk(b"IDAT", packed[:900]), make_chunk(b"IDAT", packed[900:])
    head, text = png.SIGNATURE + make_ihdr(50, 40), make_chunk(b"tEXt", b"a\0b")
    assert np.array_equal(preprocess.decode(head + b"".join(halves) + make_chunk(b"IEND")), GREY)
    assert reason(head + halves[0] + text + halves[1] + make_chunk(b"IEND")) == "undecodable"
    assert reason(head + make_chunk(b"tRNS", b"\0\0") * 2 + b"".join(halves) + make_chunk(b"IEND")) == "undecodable"
    assert reason(head + text + make_chunk(b"IEND")) == "undecodable"


def test_rejects_text_that_inflates_beyond_the_limit() -> None:
    def texts(count: int) -> bytes:
        return make_png(GREY, after=make_chunk(b"zTXt", b"name\0\0" + made.make_zlib_bomb(4)) * count)

    assert clean_png(texts(4)) == WHOLE
    assert reason(texts(5)) == "too_large"


def test_rejects_more_pixels_than_the_header_declares() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1100, 1100), np.uint8)
    assert clean_png(encode_image(noise)) == encode_image(noise)
    assert len(encode_image(noise)) > png.UNCHECKED
    assert reason(make_png(GREY, pixels=made.make_zlib_bomb(1100))) == "too_large"
    many = make_png(GREY, pixels=zlib.compress(made.encode_rows(noise), 0))
    assert reason(many) == "too_large"


def test_rejects_too_many_chunks() -> None:
    assert clean_png(make_png(GREY, before=make_chunk(b"viRu") * (MAX_CHUNKS - 3))) == WHOLE
    assert reason(make_png(GREY, before=make_chunk(b"viRu") * (MAX_CHUNKS - 2))) == "too_large"


def test_rejects_data_other_than_padding_after_the_end() -> None:
    for padding in (b"", b"\0", b"\r\n", bytes(5000)):
        assert clean_png(WHOLE + padding) == WHOLE
    assert reason(WHOLE + b"x") == "undecodable"
    assert reason(WHOLE + bytes(9) + made.make_zip()) == "undecodable"
    assert reason(WHOLE + bytes(9) + WHOLE) == "multi_frame"


@pytest.mark.parametrize("rest", [b"\n", b"\x1a", b"\r\n\x1a", b"\xff" * 9, bytes(200)])
def test_line_ends_and_padding_may_follow_the_end(rest: bytes) -> None:
    assert np.array_equal(preprocess.decode(WHOLE + rest), GREY)


def with_significant_bits(whole: bytes, bits: int) -> bytes:
    return whole[:33] + make_chunk(b"sBIT", bytes([bits])) + whole[33:]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_values_of_fewer_bits_are_scaled_to_their_depth(bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (40, 50)).astype(np.uint16)
    expected = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    assert np.array_equal(preprocess.decode(encode_image(values)), expected)
    dark = (values // 3).astype(np.uint16)
    assert np.array_equal(
        preprocess.decode(with_significant_bits(encode_image(dark), bits)), np.rint(dark * (255 / (2**bits - 1)))
    )
    marked = values.copy()
    marked[:3, :5] = 65535  # a burnt-in marker
    grey = preprocess.decode(encode_image(marked))
    assert (grey[:3, :5] == 255).all() and np.array_equal(grey[3:], expected[3:])


def test_values_that_use_their_range_are_read_by_the_high_byte_whatever_is_significant() -> None:
    values = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16) << 4
    for whole in (encode_image(values), with_significant_bits(encode_image(values), 12)):
        assert np.array_equal(preprocess.decode(whole), values >> 8)


@pytest.mark.parametrize("most", [1, 255, 511])
def test_rejects_16_bit_values_of_an_unknown_depth(most: int) -> None:
    values = np.random.default_rng(0).integers(0, most + 1, (40, 50)).astype(np.uint16)
    assert reason(encode_image(values)) == "unsupported_format"
    assert np.array_equal(
        preprocess.decode(with_significant_bits(encode_image(values), 9)), np.rint(values * (255 / 511))
    )
