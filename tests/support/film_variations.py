"""Films as other rooms and machines produce them: variations that an OOD detector must accept."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.support.foreign_images import Image


def _letterbox(film: Image, height: float, width: float) -> Image:
    """As `chestai.imaging.preprocess.resize` fits a film of another shape into the square."""
    size = len(film)
    tall, wide = round(size * height), round(size * width)
    square = np.zeros_like(film)
    top, left = (size - tall) // 2, (size - wide) // 2
    square[top : top + tall, left : left + wide] = cv2.resize(film, (wide, tall), interpolation=cv2.INTER_AREA)
    return square


def _moved(film: Image, zoom: float, across: float, down: float) -> Image:
    size = len(film)
    move = np.array([[zoom, 0, size * ((1 - zoom) / 2 + across)], [0, zoom, size * ((1 - zoom) / 2 + down)]])
    return cv2.warpAffine(film, move, (size, size), borderMode=cv2.BORDER_CONSTANT).astype(np.uint8)


def _gamma(film: Image, exponent: float) -> Image:
    return np.rint(255 * (film / 255.0) ** exponent).astype(np.uint8)


# What a reading room would still call an ordinary film, beside the corruptions of `chestai.imaging.corruptions`.
ORDINARY: dict[str, Callable[[Image], Image]] = {
    "as it is": lambda film: film,
    "mirrored": lambda film: np.ascontiguousarray(film[:, ::-1]),  # heart on the right: nobody could tell from outside
    "gamma 0.7": lambda film: _gamma(film, 0.7),
    "gamma 1.4": lambda film: _gamma(film, 1.4),
    "portrait 4:5": lambda film: _letterbox(film, 1.0, 0.8),
    "landscape 5:4": lambda film: _letterbox(film, 0.8, 1.0),
    "zoom 0.92": lambda film: _moved(film, 0.92, 0, 0),
    "zoom 1.08": lambda film: _moved(film, 1.08, 0, 0),
    "shift 5 %": lambda film: _moved(film, 1.0, 0.05, -0.05),
}


def ordinary(kind: str, films: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The films, all changed alike: uint8 (N, S, S)."""
    return np.stack([ORDINARY[kind](film) for film in films])
