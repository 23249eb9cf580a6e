"""How far probabilities are from the truth: calibration errors of one finding."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.known import known


def expected_calibration_error(targets: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Mean gap between probability and observed frequency, over equal-width bins weighted by their images.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015, binary form.
    Bin b of B holds b/B <= p < (b+1)/B; the last also holds p = 1.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,) in [0, 1].
        bins: their number, 1 or more.

    Returns:
        In [0, 1]; NaN when no target is known.

    Raises:
        ValueError: bins < 1, a probability is NaN or outside [0, 1], the shapes differ, or a target is
            neither 0 nor 1.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins} must be 1 or more")
    positive, values = _known_probabilities(targets, probabilities)
    if not values.size:
        return float("nan")
    bin_of_image = np.minimum((values * bins).astype(int), bins - 1)
    # (mean probability - frequency) x images of a bin is a plain sum of differences.
    gaps = np.bincount(bin_of_image, weights=values - positive, minlength=bins)
    return float(np.abs(gaps).sum() / len(values))


def brier(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference of probability and target (Brier, 1950), in [0, 1].

    Arguments, NaN and errors as in `expected_calibration_error`.
    """
    positive, values = _known_probabilities(targets, probabilities)
    return float(np.mean((values - positive) ** 2)) if values.size else float("nan")


def _known_probabilities(targets: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    _, positive, values = known(targets, probabilities)
    outside = values[(values < 0) | (values > 1)]
    if outside.size:
        raise ValueError(f"probability {outside[0]} must be in [0, 1]")
    return positive, values
