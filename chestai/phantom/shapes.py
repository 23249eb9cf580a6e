"""Soft shapes that findings are made of, on the unit square of a film."""

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.phantom.anatomy import Film, draw_segments
from chestai.phantom.thorax import Array


def fill(film: Film, shape: Array, strength: float) -> None:
    """Replace ``strength`` of the air under ``shape`` (0 to 1) by fluid; what is already filled stays so."""
    film.fill = np.maximum(film.fill, np.clip(shape * strength, 0, 1), dtype=np.float32)


def lung(film: Film, side: int) -> Array:
    """1 where there is aerated lung, fading to 0 at its border."""
    return np.clip(film.lungs[side] * np.float32(4), 0, 1)


def radial(film: Film, x: float, y: float, rx: float, ry: float) -> Array:
    """Squared distance from (x, y) in units of the half-axes."""
    return (((film.x - x) / rx) ** 2 + ((film.y - y) / ry) ** 2).astype(np.float32)


def strokes(film: Film, start: NDArray[np.float64], end: NDArray[np.float64], width: float) -> Array:
    """Lines of ``width`` from each row (x, y) of ``start`` to that of ``end``, 0 to 1."""
    layer = np.zeros((film.pixels, film.pixels), np.uint8)
    draw_segments(layer, start, end, width, 1.0)
    return layer.astype(np.float32) / np.float32(255)


def cloud(film: Film, rng: np.random.Generator, cells: int) -> Array:
    """Smooth noise of unit spread with ``cells`` bumps a side, the same at any resolution."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (film.pixels, film.pixels), interpolation=cv2.INTER_CUBIC)
