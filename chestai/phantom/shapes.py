"""Soft shapes that make up findings, on the unit square of a film."""

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.phantom.anatomy import Film, draw_segments
from chestai.phantom.thorax import Array


def fill_air(film: Film, shape: Array, strength: float) -> None:
    """Replaces the share `strength` of the air under `shape` (0 to 1) by fluid; never removes earlier fluid."""
    film.fill = np.maximum(film.fill, np.clip(shape * strength, 0, 1), dtype=np.float32)


def lung_mask(film: Film, side: int) -> Array:
    """Returns a mask that is 1 in aerated lung and fades to 0 at its border."""
    return np.clip(film.lungs[side] * np.float32(4), 0, 1)


def squared_distance(film: Film, x: float, y: float, rx: float, ry: float) -> Array:
    """Computes the squared distance from (x, y) in units of the half-axes `rx` and `ry`."""
    return (((film.x - x) / rx) ** 2 + ((film.y - y) / ry) ** 2).astype(np.float32)


def draw_strokes(film: Film, start: NDArray[np.float64], end: NDArray[np.float64], width: float) -> Array:
    """Draws a line from each row (x, y) of `start` to the same row of `end`, with values from 0 to 1."""
    layer = np.zeros((film.pixels, film.pixels), np.uint8)
    draw_segments(layer, start, end, width, 1.0)
    return layer.astype(np.float32) / np.float32(255)


def smooth_noise(film: Film, rng: np.random.Generator, cells: int) -> Array:
    """Draws smooth noise of unit variance with `cells` bumps a side, the same at any resolution."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (film.pixels, film.pixels), interpolation=cv2.INTER_CUBIC)
