"""Corruptions of phantoms: each severity worse than the one before, each image by its own seed, every pixel legal."""

import numpy as np
import pytest
from numpy.typing import NDArray

from chestai.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from chestai.phantom import draw, plan

SEEDS = range(40, 46)


def phantoms(size: int) -> NDArray[np.uint8]:
    images = [image for image in plan(24, size, seed=3) if image.form == "grey"]
    return np.stack([draw(image)[0] for image in images[: len(SEEDS)]])


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    return phantoms(224)


def distance(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean absolute difference of each image, in grey values."""
    return np.abs(ours.astype(float) - theirs).mean(axis=(1, 2))


@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_change_grows_with_severity(name: str, size: int) -> None:
    films = phantoms(size)
    changes = [np.zeros(len(films))] + [distance(corrupt(films, name, one, SEEDS), films) for one in SEVERITIES]
    assert (np.diff(changes, axis=0) > 0.1).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_highest_severity_leaves_the_image_recognisable(name: str, films: NDArray[np.uint8]) -> None:
    inner = np.s_[:, 56:-56, 56:-56]  # a rotation brings in black from outside
    for before, after in zip(films[inner], corrupt(films, name, 3, SEEDS)[inner], strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_is_deterministic_and_keeps_its_input(name: str, films: NDArray[np.uint8]) -> None:
    before = films.copy()
    first, second = (corrupt(films, name, 2, SEEDS) for _ in range(2))
    assert first.shape == films.shape and first.dtype == np.uint8
    assert np.array_equal(first, second) and np.array_equal(films, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_image_depends_only_on_its_own_seed(name: str, films: NDArray[np.uint8]) -> None:
    together = corrupt(films, name, 2, SEEDS)
    for row, seed in enumerate(SEEDS):
        assert np.array_equal(corrupt(films[[row]], name, 2, [seed])[0], together[row])


@pytest.mark.parametrize(
    ("name", "seeded"), [(name, name in ("brightness", "noise", "rotation")) for name in CORRUPTIONS]
)
def test_seed_determines_only_random_corruptions(name: str, seeded: bool, films: NDArray[np.uint8]) -> None:
    same = np.repeat(films[:1], 8, axis=0)
    different = {image.tobytes() for image in corrupt(same, name, 2, range(8))}
    assert len(different) == (8 if name == "noise" else 2 if seeded else 1), "2: one each way"


def test_noise_and_brightness_are_fractions_of_full_scale() -> None:
    grey = np.full((4, 128, 128), 128, np.uint8)
    noisy = corrupt(grey, "noise", 2, range(4)).astype(float) - 128
    assert np.abs(noisy.std(axis=(1, 2)) - 0.05 * 255).max() < 0.3 and np.abs(noisy.mean(axis=(1, 2))).max() < 0.5
    brighter = corrupt(grey, "brightness", 2, range(4)).astype(float) - 128
    assert (np.abs(np.abs(brighter) - 25.5) <= 0.5).all()


def test_contrast_keeps_the_mean_and_scales_the_deviation(films: NDArray[np.uint8]) -> None:
    after = corrupt(films, "contrast", 2, SEEDS)
    np.testing.assert_allclose(after.mean(axis=(1, 2)), films.mean(axis=(1, 2)), atol=0.2)
    np.testing.assert_allclose(after.std(axis=(1, 2)), 0.55 * films.std(axis=(1, 2)), atol=0.2)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("grey", [0, 127, 255])
@pytest.mark.parametrize("side", [1, 5, 64])
def test_constant_image_stays_in_range(name: str, grey: int, side: int) -> None:
    for severity in SEVERITIES:
        after = corrupt(np.full((2, side, side), grey, np.uint8), name, severity, [0, 1])
        assert after.shape == (2, side, side) and after.dtype == np.uint8
        if name in ("contrast", "blur", "resolution"):
            assert (after == grey).all()
        if name == "jpeg":
            assert np.abs(after.astype(int) - grey).max() <= 6, "a mean is stored in coarser steps, too"
        if name == "noise" and side > 1:
            assert np.abs(after.astype(int) - grey).max() < 6 * 0.08 * 255, "and none wraps around"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_accepts_no_images(name: str) -> None:
    assert corrupt(np.zeros((0, 8, 8), np.uint8), name, 1, []).shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("pixels", "name", "severity", "seeds", "reason"),
    [
        (np.zeros((1, 8, 8), np.uint8), "fog", 1, [0], "no corruption 'fog': there are brightness, contrast"),
        (np.zeros((1, 8, 8), np.uint8), "blur", 0, [0], "severity 0 must be 1, 2 or 3"),
        (np.zeros((1, 8, 8), np.uint8), "blur", 4, [0], "severity 4 must be"),
        (np.zeros((2, 8, 8), np.uint8), "blur", 1, [0], "1 seeds for 2 images"),
        (np.zeros((1, 8, 8), np.uint8), "noise", 1, [-1], "negative"),
        (np.zeros((1, 8, 8), np.float32), "blur", 1, [0], r"pixels float32 \(1, 8, 8\) must be uint8"),
        (np.zeros((8, 8), np.uint8), "blur", 1, [0] * 8, r"must be uint8 \(N, S, S\)"),
        (np.zeros((1, 8, 9), np.uint8), "blur", 1, [0], r"must be uint8 \(N, S, S\)"),
    ],
)
def test_rejects_invalid_input(
    pixels: NDArray[np.uint8], name: str, severity: int, seeds: list[int], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        corrupt(pixels, name, severity, seeds)
