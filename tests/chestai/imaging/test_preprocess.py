"""The one preprocessing, on whole, odd and broken files."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from chestai.imaging import preprocess
from chestai.imaging.errors import REASONS, Unreadable


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8)


def test_grey_png_is_decoded_exactly(grey: np.ndarray) -> None:
    assert np.array_equal(preprocess.decode(png(grey)), grey)
    assert preprocess.read_header(png(grey)) == preprocess.Header("PNG", 96, 128, 1)


def test_rgba_with_equal_channels_equals_the_grey_image(grey: np.ndarray) -> None:
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert np.array_equal(preprocess.decode(png(rgba)), grey)
    assert preprocess.read_header(png(rgba)).channels == 4


def test_sixteen_bit_png_keeps_the_high_byte(grey: np.ndarray) -> None:
    assert np.array_equal(preprocess.decode(png(grey.astype(np.uint16) * 257)), grey)


def test_ignores_the_rotation_tag_of_a_jpeg(grey: np.ndarray) -> None:
    smooth = cv2.GaussianBlur(grey, (0, 0), 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"; radiographs are not phone photos
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "JPEG", quality=95, exif=exif)
    decoded = preprocess.decode(file.getvalue())
    assert decoded.shape == smooth.shape
    assert np.abs(decoded.astype(int) - smooth).mean() < 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "empty_file"),
        (lambda data: b"not an image at all", "not_an_image"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-6], "truncated"),
        (lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:], "truncated"),
        (lambda data: data[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + data[24:], "not_an_image too_large"),
    ],
)
def test_rejects_broken_file_with_its_reason(grey: np.ndarray, damage: object, reason: str) -> None:
    with pytest.raises(Unreadable) as refused:
        preprocess.decode(damage(png(grey)))  # type: ignore[operator]
    assert refused.value.reason in reason.split()
    assert refused.value.reason in REASONS


def test_rejects_png_cut_or_damaged_anywhere(grey: np.ndarray) -> None:
    whole = png(grey)
    start, end = whole.index(b"IDAT") + 4, whole.index(b"IEND") + 4
    for length in [*range(1, end - 64, 7), *range(end - 64, end)]:
        with pytest.raises(Unreadable, match="truncated" if length >= start else "not_an_image"):
            preprocess.decode(whole[:length])
    for at in range(start, end - 8, 7):
        with pytest.raises(Unreadable, match="truncated"):
            preprocess.decode(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])


def test_rejects_cut_jpeg_and_other_formats(grey: np.ndarray) -> None:
    jpeg = cv2.imencode(".jpg", grey)[1].tobytes()
    with pytest.raises(Unreadable, match="truncated"):
        preprocess.decode(jpeg[: len(jpeg) // 2])
    with pytest.raises(Unreadable, match="not_an_image"):
        preprocess.decode(cv2.imencode(".bmp", grey)[1].tobytes())


def test_rejects_image_that_is_too_small_or_too_large() -> None:
    with pytest.raises(Unreadable, match="too_small"):
        preprocess.decode(png(np.zeros((16, 500), np.uint8)))
    bomb = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(bomb, "PNG")
    with pytest.raises(Unreadable, match="too_large"):
        preprocess.decode(bomb.getvalue())


def test_resize_keeps_the_aspect_ratio_and_pads_black() -> None:
    wide = np.full((100, 200), 255, np.uint8)
    square = preprocess.resize(wide, 64)
    assert square.shape == (64, 64)
    assert (square[16:48] == 255).all() and not square[:16].any() and not square[48:].any()


def test_resize_is_antialiased() -> None:
    stripes = np.zeros((1024, 1024), np.uint8)
    stripes[:, ::2] = 200
    small = preprocess.resize(stripes, 224)
    assert np.ptp(small) <= 4 and abs(int(small.mean()) - 100) <= 1


@pytest.mark.parametrize("size", [32, 96, 224, 512])
def test_resize_matches_pillow_box_filter(size: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.uint8)
    ours = preprocess.resize(image, size).astype(int)
    theirs = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)).astype(int)
    assert np.abs(ours - theirs).max() <= 3


def test_reads_every_nih_original(nih_root: Path) -> None:
    files = sorted((nih_root / "images").glob("*.png"))
    headers = [preprocess.read_header(path.read_bytes()) for path in files]
    assert len(files) == 233
    assert sum(header.channels == 4 for header in headers) == 4
    rgba = next(path for path, header in zip(files, headers, strict=True) if header.channels == 4)
    with Image.open(rgba) as image:
        assert np.array_equal(preprocess.decode(rgba.read_bytes()), np.asarray(image)[..., 0])
