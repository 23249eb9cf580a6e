"""A thumbnail and the grey range of an image: small facts that show nonsense and copies among many images.

Both are made from every k-th pixel of every k-th row, about 256 x 256 of them: a pass over all pixels would cost as
much as a tenth of decoding. The thumbnail squeezes the image into a square, because its copies have the same shape.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from chestai.imaging.preprocess import Grey

SIDE = 16  # pixels of a thumbnail
SAMPLED_SIDE = 256  # pixels of the shorter side that the thumbnail is made from, or up to twice as many
RANGE_SIDE = 48  # the same for the grey range: 2,300 pixels give a share to 1 percentage point
LOW, HIGH = 0.01, 0.99  # quantiles between which the grey range lies


@dataclass(frozen=True)
class Sketch:
    """What is kept of an image's pixels.

    Attributes:
        thumbnail: `SIDE` x `SIDE` bytes, row by row, 0 is black: means of the image's areas.
        grey_low, grey_high: The 1st and 99th percentile of the grey levels, 0 to 255.
        common_grey: Share of the pixels that have the most common grey level, 0 to 1.
    """

    thumbnail: bytes
    grey_low: int
    grey_high: int
    common_grey: float


def sketch(grey: Grey) -> Sketch:
    """Sketch an image: uint8 of shape (H, W), at least one pixel."""
    sample = np.ascontiguousarray(_thin(grey, SAMPLED_SIDE))
    counts = np.bincount(_thin(sample, RANGE_SIDE).ravel(), minlength=256)
    up_to = counts.cumsum()
    total = int(up_to[-1])
    low, high = up_to.searchsorted((LOW * total, HIGH * total)).tolist()
    return Sketch(
        thumbnail=shrink(sample).tobytes(),
        grey_low=low,
        grey_high=high,
        common_grey=int(counts.max()) / total,
    )


def _thin(grey: Grey, side: int) -> Grey:
    """Take every k-th pixel of every k-th row, so that the shorter side keeps `side` to 2 `side` pixels, if it can."""
    step = max(1, min(grey.shape) // side)
    return grey[::step, ::step]


def shrink(grey: Grey) -> Grey:
    """Squeeze an image into (`SIDE`, `SIDE`), uint8. Halving first is ten times faster than one step of areas."""
    while min(grey.shape) >= 8 * SIDE:
        half = (grey.shape[1] // 2, grey.shape[0] // 2)
        grey = cv2.resize(grey, half, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
