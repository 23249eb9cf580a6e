"""Thumbnails and grey ranges, and copies found by them: on made images, and on NIH's originals."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from chestai.imaging.near_duplicates import find_copies, standardise
from chestai.imaging.preprocess import Grey, decode
from chestai.imaging.thumbnail import SIDE, sketch

CORRELATION = 0.997


def jpeg(grey: Grey, quality: int) -> Grey:
    return decode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def shrunk(grey: Grey, side: int, how: int = cv2.INTER_AREA) -> Grey:
    return cv2.resize(grey, (side, side), interpolation=how).astype(np.uint8, copy=False)


COPIES: dict[str, Callable[[Grey], Grey]] = {
    "JPEG of quality 90": lambda grey: jpeg(grey, 90),
    "JPEG of quality 40": lambda grey: jpeg(grey, 40),
    "1000 pixels": lambda grey: shrunk(grey, 1000),
    "512 pixels": lambda grey: shrunk(grey, 512),
    "299 pixels, not smoothed": lambda grey: shrunk(grey, 299, cv2.INTER_LINEAR),
    "224 pixels, JPEG": lambda grey: jpeg(shrunk(grey, 224), 75),
    "2048 pixels": lambda grey: shrunk(grey, 2048, cv2.INTER_CUBIC),
    "brighter": lambda grey: cv2.convertScaleAbs(grey, alpha=0.9, beta=10).astype(np.uint8),
}


def read_thumbnails(images: list[Grey]) -> NDArray[np.uint8]:
    return np.stack([np.frombuffer(sketch(image).thumbnail, np.uint8) for image in images])


def test_thumbnail_holds_the_means_of_areas() -> None:
    blocks = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE), np.uint8)
    for height, width in ((1024, 1024), (320, 512), (16, 16)):
        image = np.repeat(np.repeat(blocks, height // SIDE, axis=0), width // SIDE, axis=1)
        assert sketch(image).thumbnail == blocks.tobytes()


def test_grey_range_ignores_a_hundredth_at_either_end() -> None:
    image = np.linspace(100, 110, 300 * 300).astype(np.uint8).reshape(300, 300)
    chance = np.random.default_rng(3).random(image.shape)
    image[chance < 0.005], image[chance > 0.995] = 0, 255
    found = sketch(image)
    assert (found.grey_low, found.grey_high) == (100, 109) and found.common_grey == pytest.approx(0.1, abs=0.01)
    flat = sketch(np.full((64, 80), 7, np.uint8))
    assert (flat.grey_low, flat.grey_high, flat.common_grey) == (7, 7, 1.0)


@pytest.mark.slow
def test_copies_of_real_films_are_found_and_no_other_pair(nih_root: Path) -> None:
    paths = sorted((nih_root / "images").glob("*.png"))
    films = [decode(path.read_bytes()) for path in paths]
    originals = read_thumbnails(films)
    few = range(0, len(films), 12)
    copies = read_thumbnails([copy(films[at]) for copy in COPIES.values() for at in few])
    vectors = standardise(np.concatenate([originals, copies]))
    is_original = np.arange(len(vectors)) < len(originals)
    found, of, _ = find_copies(vectors, is_original, CORRELATION)
    assert found.tolist() == list(range(len(originals), len(vectors)))
    assert of.tolist() == [at for _ in COPIES for at in few]
    # No film is a copy of another: each half of them looks for itself in the other half.
    alone = standardise(originals)
    for bit in range(8):
        half = (np.arange(len(alone)) >> bit) % 2 == 0
        assert not len(find_copies(alone, half, CORRELATION)[0]) and not len(find_copies(alone, ~half, CORRELATION)[0])


def test_search_finds_what_comparing_every_pair_finds() -> None:
    chance = np.random.default_rng(5)
    centres = chance.integers(0, 256, (40, SIDE * SIDE))
    thumbnails = np.repeat(centres, 5, axis=0) + chance.normal(0, 6, (200, SIDE * SIDE))
    vectors = standardise(np.clip(thumbnails, 0, 255).astype(np.uint8))
    originals = chance.random(200) < 0.5
    products = np.where(originals, vectors @ vectors.T, -1)
    copies, of, values = find_copies(vectors, originals, 0.99)
    assert copies.tolist() == [at for at in np.flatnonzero(~originals) if products[at].max() >= 0.99]
    assert len(copies) > 50 and of.tolist() == products[copies].argmax(axis=1).tolist()
    assert values == pytest.approx(products[copies].max(axis=1), abs=1e-6)


def test_flat_thumbnails_are_copies_of_nothing() -> None:
    vectors = standardise(np.full((4, SIDE * SIDE), 9, np.uint8))
    assert not len(find_copies(vectors, np.array([True, True, False, False]), 0.997)[0])
    assert not len(find_copies(standardise(np.eye(4, 9, dtype=np.uint8)), np.ones(4, bool), 0.997)[0])
