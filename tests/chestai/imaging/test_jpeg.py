"""JPEG: every kind that cameras and archives write is read, and nothing that misses data."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from chestai.imaging import preprocess
from chestai.imaging.errors import REASONS, Unreadable, find_rest
from chestai.imaging.jpeg import MAX_SCANS, SIGNATURE, check_jpeg
from chestai.phantom import draw, plan
from tests.serve.support import forgery as made
from tests.serve.support.forgery import encode_image, make_jpeg

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
FILM = next(draw(image)[0] for image in plan(24, 224, seed=3) if image.form == "grey")
COLOUR = cv2.applyColorMap(FILM, cv2.COLORMAP_BONE)
OPENCV_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION


def decode_by_opencv(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), OPENCV_FLAGS)
    assert image is not None
    return image


def reason(data: bytes) -> str:
    with pytest.raises(Unreadable) as rejected:
        preprocess.decode(data)
    return rejected.value.reason


def by_opencv(image: np.ndarray, *flags: int) -> bytes:
    ok, data = cv2.imencode(".jpg", image, flags)
    assert ok
    return data.tobytes()


def by_pillow(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return file.getvalue()


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    """The file with a further segment behind its first marker."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def with_fill_bytes(data: bytes) -> bytes:
    """Fill bytes before the first marker of a table (ITU-T T.81, B.1.1.2)."""
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\xff\xff" + data[at:]


def kinds() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = by_opencv(FILM)
    found = {
        **{f"grey of quality {quality}": by_opencv(FILM, 1, quality) for quality in (5, 30, 75, 90, 100)},
        **{f"colour, sampling {name}": by_opencv(COLOUR, 7, flag) for name, flag in SAMPLINGS.items()},
        **{f"grey {height} x {width}": by_opencv(FILM[:height, :width]) for height, width in SIZES},
        **{f"restarts every {rows}": by_opencv(FILM, 4, rows) for rows in (1, 7, 200)},
        "progressive grey": by_opencv(FILM, 2, 1),
        "progressive colour": by_opencv(COLOUR, 2, 1),
        "progressive with restarts": by_opencv(COLOUR, 2, 1, 4, 5),
        "optimised tables": by_opencv(FILM, 3, 1),
        "EXIF with rotation": by_pillow(FILM, exif=exif),
        "colour profile": by_pillow(COLOUR, icc_profile=bytes(3000)),
        "resolution in the header": by_pillow(FILM, dpi=(143, 143)),
        "RGB with Adobe's marker": by_pillow(COLOUR, keep_rgb=True),
        "comment": with_segment(plain, 0xFE, b"thorax pa"),
        "APP1 with XMP": with_segment(plain, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        "APP13 with Photoshop data": with_segment(plain, 0xED, b"Photoshop 3.0\0" + bytes(99)),
        "APP15 of a maker": with_segment(plain, 0xEF, bytes(500)),
        "fill bytes": with_fill_bytes(plain),
        "padding behind the end": plain + bytes(77),
        "line end behind the end": plain + b"\r\n",
        "flat": by_opencv(np.full((64, 64), 9, np.uint8)),
        "noise": by_opencv(GREY, 1, 95),
    }
    return found


SAMPLINGS = {"4:4:4": 0x111111, "4:2:2": 0x211111, "4:2:0": 0x221111, "4:4:0": 0x121111, "4:1:1": 0x411111}
SIZES = [(32, 32), (33, 47), (64, 224), (101, 99)]
KINDS = kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_reads_every_kind_as_opencv_does(kind: str) -> None:
    expected = decode_by_opencv(KINDS[kind])
    assert np.array_equal(preprocess.decode(KINDS[kind]), expected)


def test_there_are_thirty_kinds() -> None:
    assert len(KINDS) >= 30


@pytest.mark.parametrize("kind", KINDS)
def test_rejects_file_cut_off_and_closed(kind: str) -> None:
    """The decoder fills up the rest with grey and warns."""
    whole = KINDS[kind].rstrip(b"\0\r\n")
    scan = whole.index(b"\xff\xda") + 16
    for share in (0.3, 0.6, 0.9):
        at = scan + int((len(whole) - 2 - scan) * share)
        if kind != "flat":
            assert reason(whole[:at] + b"\xff\xd9") in ("truncated", "undecodable"), share


def test_rejects_most_files_with_zeroed_bytes() -> None:
    """Not all: entropy-coded data have no checksum, and a decoder may find its place again without a trace."""
    whole, found = by_opencv(FILM, 1, 90), 0
    places = np.random.default_rng(0).integers(len(whole) // 4, len(whole) - 20, 60)
    for at in places:
        try:
            preprocess.decode(whole[:at] + bytes(16) + whole[at + 16 :])
        except Unreadable:
            found += 1
    assert found >= 30


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_generated_containers_give_what_the_decoder_gives(data: st.DataObject) -> None:
    """Segments in any order: what passes has the size and the pixels that OpenCV finds in the file as it came."""
    whole = data.draw(st.sampled_from([make_jpeg(GREY), make_jpeg(GREY, progressive=True)]))
    frame = struct.pack(">BHHB", 8, *data.draw(st.sampled_from([(40, 50), (50, 40), (64, 64), (20_000, 9)])), 1)
    segments = st.sampled_from(
        [(0xC0, frame + b"\1\x11\0"), (0xC2, frame + b"\1\x11\0"), (0xFE, b"text"), (0xE0, b""), (0xDD, b"\0\4")]
    )
    for marker, body in data.draw(st.lists(segments, max_size=3)):
        whole = with_segment(whole, marker, body)
    try:
        grey = preprocess.decode(whole)
    except Unreadable as error:
        assert error.reason in REASONS
    else:
        assert np.array_equal(grey, decode_by_opencv(whole))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80), st.sampled_from([SIGNATURE, make_jpeg(GREY)[:200]]))
def test_arbitrary_bytes_are_rejected_with_a_reason(data: bytes, start: bytes) -> None:
    assert reason(start + data) in REASONS


def test_rejects_second_frame_header() -> None:
    whole = make_jpeg(GREY)
    larger = struct.pack(">BHHB", 8, 9000, 9000, 1) + b"\1\x11\0"
    assert reason(with_segment(whole, 0xC0, larger)) == "undecodable"


def test_rejects_components_and_bits_that_no_decoder_reads() -> None:
    file = io.BytesIO()
    Image.fromarray(COLOUR).convert("CMYK").save(file, "JPEG")
    assert reason(file.getvalue()) == "unsupported_format"
    twelve = bytearray(make_jpeg(GREY))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    assert reason(bytes(twelve)) == "unsupported_format"


def test_rejects_arithmetic_coding() -> None:
    """Its decoder takes missing data for zeros, as the standard says."""
    for marker in (0xC9, 0xCA):
        whole = bytearray(make_jpeg(GREY))
        whole[whole.index(b"\xff\xc0") + 1] = marker
        assert reason(bytes(whole)) == "unsupported_format"


def test_rejects_too_many_scans() -> None:
    few = made.make_scan_bomb(64, MAX_SCANS - 10)
    assert check_jpeg(few).height == 64
    assert reason(made.make_scan_bomb(64, MAX_SCANS)) == "too_large"


@pytest.mark.parametrize(
    "whole",
    [make_jpeg(GREY), make_jpeg(GREY, progressive=True), made.make_rotated_jpeg(GREY), encode_image(GREY, ".jpg")],
)
def test_rejects_data_other_than_padding_after_the_end(whole: bytes) -> None:
    for padding in (b"", b"\0", b"\r\n", bytes(5000)):
        assert check_jpeg(whole + padding) == check_jpeg(whole)
    assert reason(whole + b"x") == "undecodable"
    assert reason(whole + bytes(9) + made.make_zip()) == "undecodable"
    assert reason(whole + bytes(9) + whole) == "multi_frame"


def make_notes(*parts: bytes) -> bytes:
    """What a Samsung phone appends: notes, and a directory of them."""
    return b"".join(parts) + b"SEFH" + struct.pack("<II", 106, len(parts)) + bytes(12) + struct.pack("<I", 24) + b"SEFT"


@pytest.mark.parametrize("whole", [make_jpeg(GREY), encode_image(GREY, ".jpg")])
@pytest.mark.parametrize(
    "rest",
    [
        b"\xff\xd9",
        bytes(2) + b"\xff\xd9",
        b"\xff" * 32,
        b"\n",
        b"\x1a",
        make_notes(b"\0\0\1\x0aImage_UTC_Data1700000000000"),
    ],
)
def test_phones_and_writers_may_append_what_is_no_other_file(whole: bytes, rest: bytes) -> None:
    assert np.array_equal(preprocess.decode(whole + rest), preprocess.decode(whole))
    assert preprocess.read_header(whole + rest) == preprocess.read_header(whole)


@given(st.lists(st.sampled_from([b"\0", b"\n", b"\xff", b"\xd9", b"\xd8", b"A"]), max_size=9).map(b"".join))
@example(b"\xff\xd8\xff\xe0")
def test_padding_ends_where_a_walk_over_bytes_ends_it(rest: bytes) -> None:
    data, at = b"\xd9" + rest, 1
    while at < len(data):
        is_end = data[at] == 0xD9 and data[at - 1] == 0xFF
        is_filler = data[at] == 0xFF and data[at + 1 : at + 2] != b"\xd8"
        if not (is_end or is_filler or data[at] in b"\0\n"):
            break
        at += 1
    assert find_rest(data, 1) == data[at:]


def test_notes_of_a_phone_may_hold_no_other_file() -> None:
    for inner in (made.make_zip(), b"....ftypmp42", b"<script>", make_jpeg(GREY)):
        assert reason(make_jpeg(GREY) + make_notes(inner)) in ("undecodable", "multi_frame")


def test_first_of_the_pictures_of_a_phone_is_read() -> None:
    file = io.BytesIO()
    first = Image.fromarray(GREY)
    first.save(file, "MPO", save_all=True, append_images=[Image.fromarray(GREY[:, ::-1])])
    whole = file.getvalue()
    grey = preprocess.decode(whole)
    assert np.abs(grey.astype(int) - GREY).mean() < np.abs(grey.astype(int) - GREY[:, ::-1]).mean()
    header = preprocess.read_header(whole)
    assert (header.format, header.height, header.width) == ("JPEG", *GREY.shape)
    assert reason(whole + made.make_zip()) == "undecodable"
    assert reason(whole + make_jpeg(GREY) * 5) == "multi_frame"


def test_ignores_jpeg_inside_a_segment() -> None:
    """As a thumbnail, with scans and an end."""
    inner = made.make_comment_segment(made.make_scan_bomb(32, 200)[:60_000])
    whole = make_jpeg(GREY)
    assert check_jpeg(whole[:2] + inner + whole[2:]) == check_jpeg(whole)
    assert reason(whole[:2] + inner + whole[2:-2]) == "truncated"


def test_rejects_segment_longer_than_the_file() -> None:
    assert reason(make_jpeg(GREY)[:2] + b"\xff\xe1" + struct.pack(">H", 65_000) + bytes(99)) == "not_an_image"
