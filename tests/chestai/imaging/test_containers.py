"""What a decoder gets to see of PNG and JPEG files."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestai.imaging import containers, preprocess
from chestai.imaging.containers import MAX_PARTS, MAX_SCANS
from chestai.imaging.errors import REASONS, Unreadable
from tests.serve.support import forgery as made
from tests.serve.support.forgery import encode_image, make_jpeg, make_png
from tests.support.pngs import make_chunk

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)


def reason(data: bytes) -> str:
    with pytest.raises(Unreadable) as refused:
        containers.check_container(data)
    return refused.value.reason


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(32, 70), st.integers(32, 70)),
    depth=st.sampled_from([np.uint8, np.uint16]),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 99),
)
def test_encoded_images_pass_unchanged(shape: tuple[int, int], depth: type, channels: int, seed: int) -> None:
    image: np.ndarray = np.random.default_rng(seed).integers(0, 256, (*shape, channels)).astype(depth)
    assert containers.check_container(encode_image(image)) == encode_image(image)
    if depth is np.uint8 and channels != 4:
        assert containers.check_container(encode_image(image, ".jpg")) == encode_image(image, ".jpg")


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"acTL", b"viRu"])
def test_drops_chunks_without_pixels(kind: bytes) -> None:
    data = make_chunk(kind, b"\0\0\0\1" + zlib.compress(b"text"))
    assert containers.check_container(make_png(GREY, before=data, after=data * 3)) == make_png(GREY)
    assert np.array_equal(preprocess.decode(make_png(GREY, before=data, after=data)), GREY)


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=80),
    st.sampled_from([b"", containers.PNG, containers.JPEG, make_png(GREY)[:60], make_jpeg(GREY)[:200]]),
)
def test_arbitrary_bytes_pass_unchanged_or_are_rejected(data: bytes, start: bytes) -> None:
    given = start + data
    try:
        assert containers.check_container(given) == given
    except Unreadable as refused:
        assert given.startswith((containers.PNG, containers.JPEG)) and refused.reason in REASONS


def test_rejects_text_that_inflates_beyond_the_limit() -> None:
    def texts(count: int) -> bytes:
        return make_png(GREY, after=make_chunk(b"zTXt", b"name\0\0" + made.make_zlib_bomb(4)) * count)

    assert containers.check_container(texts(4)) == make_png(GREY)
    assert reason(texts(5)) == "too_large"


def test_rejects_more_pixels_than_the_header_declares() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1100, 1100), np.uint8)
    assert containers.check_container(encode_image(noise)) == encode_image(noise)
    assert len(encode_image(noise)) > containers.UNCHECKED
    assert reason(make_png(GREY, pixels=made.make_zlib_bomb(1100))) == "too_large"
    many = make_png(GREY, pixels=zlib.compress(made.encode_rows(noise), 0))
    assert reason(many) == "too_large"


def test_rejects_too_many_chunks_or_scans() -> None:
    assert containers.check_container(make_png(GREY, before=make_chunk(b"viRu") * (MAX_PARTS - 3))) == make_png(GREY)
    assert reason(make_png(GREY, before=make_chunk(b"viRu") * (MAX_PARTS - 2))) == "too_large"
    few = made.make_scan_bomb(64, MAX_SCANS - 10)
    assert containers.check_container(few) == few
    assert reason(made.make_scan_bomb(64, MAX_SCANS)) == "too_large"


@pytest.mark.parametrize(
    "whole", [make_png(GREY), make_jpeg(GREY), make_jpeg(GREY, progressive=True), made.make_rotated_jpeg(GREY)]
)
def test_rejects_data_other_than_padding_after_the_end(whole: bytes) -> None:
    for padding in (b"", b"\0", b"\r\n", bytes(5000)):
        assert containers.check_container(whole + padding).startswith(whole[:20])
    assert reason(whole + b"x") == "undecodable"
    assert reason(whole + bytes(9) + made.make_zip()) == "undecodable"
    assert reason(whole + bytes(9) + whole) == "multi_frame"


def test_ignores_jpeg_inside_a_segment() -> None:
    """As a thumbnail, with scans and an end."""
    inner = made.make_comment_segment(made.make_scan_bomb(32, 200)[:60_000])
    whole = make_jpeg(GREY)
    assert containers.check_container(whole[:2] + inner + whole[2:]) == whole[:2] + inner + whole[2:]
    assert reason(whole[:2] + inner + whole[2:-2]) == "truncated"


def test_rejects_segment_longer_than_the_file() -> None:
    assert reason(make_jpeg(GREY)[:2] + b"\xff\xe1" + struct.pack(">H", 65_000) + bytes(99)) == "not_an_image"
