"""Describes an image by 83 numbers that tell a frontal chest radiograph from other images."""

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt

Features = NDArray[np.float64]
Floats = NDArray[np.float32]

SIDE = 64  # pixels of the square from which everything is computed
CELLS = 8  # of the layout, a side
OCTAVES = 4
DIRECTIONS = 8
BLACK = 8  # grey values up to which an edge of the image is a bar
SOFT = 4.0  # grey values added to a spread, so that the contrast of a flat image is not noise

# The groups of features, named as in the detail of a rejection.
GROUPS = {
    "layout of light and dark": slice(0, 64),
    "grey levels": slice(64, 69),
    "texture": slice(69, 73),
    "direction of edges": slice(73, 81),
    "symmetry": slice(81, 83),
}
WIDTH = 83


def image_features(pixels: NDArray[np.uint8]) -> Features:
    """`uint8` (N, S, S) -> float64 (N, 83).

    - layout: 8 x 8 means at zero mean and unit spread, so without brightness and contrast;
    - grey levels: mean, log spread, and where the quartiles lie between the 5 % and the 95 % quantile;
    - texture: log energy in four octaves, as in a Laplacian pyramid (Burt and Adelson 1983), a spectrum in short;
    - direction of edges: the share of the gradient in each of eight directions, dark to bright, as a root;
    - symmetry: correlation of the layout with its mirror image and with itself upside down.

    Black bars at the edges are cut off first, because they only show the shape of the original image.

    Raises:
        ValueError: The pixels are not uint8 (N, S, S).
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2]:
        raise ValueError(f"pixels {pixels.dtype} {pixels.shape} must be uint8 (N, S, S)")
    return np.array([_describe(image) for image in pixels]).reshape(-1, WIDTH)


def augmented_views(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Copies of (N, S, S) as another room or machine would have produced them, at most 128 pixels a side.

    Each is magnified by 0.92 to 1.08, shifted by up to 5 % and corrupted in one way of `chestai.imaging.corruptions`.
    """
    copies = []
    for image in pixels:
        size = min(len(image), 2 * SIDE)
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        zoom, (across, down) = rng.uniform(0.92, 1.08), rng.uniform(-0.05, 0.05, 2)
        rest = (1 - zoom) / 2
        move = np.array([[zoom, 0, size * (rest + across)], [0, zoom, size * (rest + down)]])
        moved = cv2.warpAffine(small, move, (size, size), flags=cv2.INTER_LINEAR).astype(np.uint8)
        kind, severity = str(rng.choice(CORRUPTIONS)), int(rng.choice(SEVERITIES))
        copies.append(corrupt(moved[None], kind, severity, [int(rng.integers(2**32))])[0])
    return np.stack(copies)


def _describe(image: NDArray[np.uint8]) -> Features:
    square = cv2.resize(_without_bars(image), (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    spread = float(square.std())
    level = (square - square.mean()) / (spread + SOFT)
    layout = cv2.resize(square, (CELLS, CELLS), interpolation=cv2.INTER_AREA).astype(np.float32)
    layout = (layout - layout.mean()) / (layout.std() + SOFT)
    low, *quartiles, high = np.percentile(square, [5, 25, 50, 75, 95])
    tone = [square.mean() / 64, np.log(spread + 1), *((np.array(quartiles) - low) / (high - low + SOFT))]
    symmetry = [(layout * layout[:, ::-1]).mean(), (layout * layout[::-1]).mean()]
    return np.concatenate([layout.ravel(), tone, _octaves(level), _directions(square), symmetry]).astype(np.float64)


def _without_bars(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = (np.flatnonzero(image.max(axis=axis) > BLACK) for axis in (1, 0))
    if len(rows) < CELLS or len(columns) < CELLS:
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _octaves(level: Floats) -> list[float]:
    energies = []
    for _ in range(OCTAVES):
        smooth = cv2.GaussianBlur(level, (0, 0), 1.2).astype(np.float32)
        energies.append(float(np.log(np.mean((level - smooth) ** 2) + 1e-4)))
        level = smooth[::2, ::2]
    return energies


def _directions(square: Floats) -> Features:
    across, down = (cv2.Sobel(square, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    angle = np.arctan2(down, across).ravel() % (2 * np.pi)
    bins = np.minimum((angle / (2 * np.pi / DIRECTIONS)).astype(np.int64), DIRECTIONS - 1)
    steep = np.hypot(across, down).ravel()
    return np.sqrt(np.bincount(bins, weights=steep, minlength=DIRECTIONS) / (steep.sum() + 1))
