"""Corruptions of an image, as other machines and archives cause them, to measure how robust a model is.

After Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
ICLR 2019, with kinds and magnitudes for radiographs.

| name       | effect                                                    | severity 1 | 2     | 3     |
|------------|-----------------------------------------------------------|------------|-------|-------|
| brightness | all grey values up or down, in parts of full scale        | 0.05       | 0.10  | 0.18  |
| contrast   | distance from the image's mean grey, as it remains        | 0.75       | 0.55  | 0.35  |
| blur       | Gaussian, deviation in parts of the side                  | 0.004      | 0.007 | 0.010 |
| noise      | Gaussian, deviation in parts of full scale                | 0.02       | 0.05  | 0.08  |
| resolution | side after shrinking, in parts of it, before enlarging    | 0.50       | 0.35  | 0.25  |
| jpeg       | quality as libjpeg counts it (blocks are 8 pixels a side) | 50         | 25    | 12    |
| rotation   | about the centre, either way, in degrees                  | 4          | 8     | 12    |

Severity 3 is meant to degrade an image clearly, yet to leave it readable. That was judged by eye, on phantoms of
256 pixels; no radiologist has been asked.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.imaging.preprocess import Grey

SEVERITIES = (1, 2, 3)


def corrupt(pixels: NDArray[np.uint8], name: str, severity: int, seeds: Sequence[int]) -> NDArray[np.uint8]:
    """Returns corrupted copies of images.

    Args:
        pixels: uint8 (N, S, S), left as it is.
        name: one of `CORRUPTIONS`.
        severity: 1 to 3; the table above.
        seeds: One per image, 0 or more: for its noise, and for the direction of rotation and brightness. Draws are the
            same for every severity and independent of the rest of the batch.

    Returns:
        uint8 (N, S, S).

    Raises:
        ValueError: An unknown name or severity, a negative seed, a number of seeds other than N, or pixels that are not
            uint8 (N, S, S).
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption {name!r}: there are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} must be 1, 2 or 3")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2]:
        raise ValueError(f"pixels {pixels.dtype} {pixels.shape} must be uint8 (N, S, S)")
    if len(seeds) != len(pixels):
        raise ValueError(f"there are {len(seeds)} seeds for {len(pixels)} images")
    change, amounts = _KINDS[name]
    changed = np.empty_like(pixels)
    for row, (image, seed) in enumerate(zip(pixels, seeds, strict=True)):
        changed[row] = change(image, amounts[severity - 1], np.random.default_rng(seed))
    return changed


def _brightness(image: Grey, amount: float, rng: np.random.Generator) -> Grey:
    return _to_uint8(image + _signed(255 * amount, rng))


def _contrast(image: Grey, remaining: float, rng: np.random.Generator) -> Grey:
    mean = image.mean()
    return _to_uint8(mean + remaining * (image - mean))


def _blur(image: Grey, deviation: float, rng: np.random.Generator) -> Grey:
    return _to_uint8(cv2.GaussianBlur(image.astype(np.float32), (0, 0), deviation * len(image)))


def _noise(image: Grey, deviation: float, rng: np.random.Generator) -> Grey:
    return _to_uint8(image + rng.standard_normal(image.shape, dtype=np.float32) * (255 * deviation))


def _resolution(image: Grey, remaining: float, rng: np.random.Generator) -> Grey:
    side = max(1, round(remaining * len(image)))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return _to_uint8(cv2.resize(small, image.shape, interpolation=cv2.INTER_LINEAR))


def _jpeg(image: Grey, quality: float, rng: np.random.Generator) -> Grey:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    if not ok:
        raise RuntimeError("OpenCV could not encode the image")
    return _to_uint8(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)))


def _rotation(image: Grey, degrees: float, rng: np.random.Generator) -> Grey:
    side = len(image)
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), _signed(degrees, rng), 1.0)
    return _to_uint8(cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_LINEAR))


def _signed(amount: float, rng: np.random.Generator) -> float:
    return math.copysign(amount, rng.random() - 0.5)


def _to_uint8(image: NDArray[np.generic]) -> Grey:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


_KINDS: dict[str, tuple[Callable[[Grey, float, np.random.Generator], Grey], tuple[float, float, float]]] = {
    "brightness": (_brightness, (0.05, 0.10, 0.18)),
    "contrast": (_contrast, (0.75, 0.55, 0.35)),
    "blur": (_blur, (0.004, 0.007, 0.010)),
    "noise": (_noise, (0.02, 0.05, 0.08)),
    "resolution": (_resolution, (0.50, 0.35, 0.25)),
    "jpeg": (_jpeg, (50, 25, 12)),
    "rotation": (_rotation, (4, 8, 12)),
}
CORRUPTIONS = tuple(_KINDS)
