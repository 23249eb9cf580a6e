"""Calibration errors: how far probabilities are from the observed frequencies, for each finding and overall."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.masking import Floats, select_known
from chestai.metrics.ranking import split_replicates

BINS = 15

# Label draws per floor: its standard error is then below a tenth of the spread of one ECE.
_DRAWS = 100


@dataclass(frozen=True)
class Curve:
    """A reliability curve over `BINS` equal-width bins, lowest first; bins without images are left out.

    Attributes:
        predicted: Mean probability of each bin's images.
        observed: Share of positives among them.
        images: Number of images, 1 or more.
    """

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    images: tuple[int, ...]


@dataclass(frozen=True)
class FindingCalibration:
    """One finding's calibration; NaN and an empty curve if no target is known.

    Attributes:
        ece: `expected_calibration_error` with `BINS` bins.
        floor: The ECE that these probabilities would have on as many images if they were perfectly calibrated: the
            mean over labels drawn from them. An ECE is never below 0, and this much of it is chance alone (Bröcker &
            Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting 2007).
        brier: The Brier score.
        curve: The reliability curve whose gaps the ECE adds up.
    """

    finding: str
    ece: float
    floor: float
    brier: float
    curve: Curve


@dataclass(frozen=True)
class CalibrationReport:
    """How well one method's probabilities are calibrated on one set of images.

    Attributes:
        method: none, platt, temperature, isotonic or shifted.
        findings: In column order.
        macro_ece, macro_floor, macro_brier: Means over the findings where they are defined; NaN where none is.
        pooled: Curve over the known (image, finding) pairs of all findings together.
    """

    method: str
    findings: tuple[FindingCalibration, ...]
    macro_ece: float
    macro_floor: float
    macro_brier: float
    pooled: Curve


def measure_calibration(
    method: str, targets: ArrayLike, probabilities: ArrayLike, findings: Sequence[str], seed: int = 0
) -> CalibrationReport:
    """Measure how well probabilities are calibrated.

    Args:
        method: The calibration method behind the probabilities; only passed on.
        targets: (N, F) 1, 0, or NaN for not known.
        probabilities: (N, F) in [0, 1]; anything where the target is not known.
        findings: F names, in column order.
        seed: Seed of the labels drawn for the floors, 0 or more.

    Raises:
        ValueError: The shapes do not fit, a target is neither 0 nor 1, or a known target's probability is NaN or
            outside [0, 1].
    """
    truth, values = np.asarray(targets, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != values.shape or truth.shape[1] != len(findings):
        raise ValueError(
            f"targets {truth.shape} and probabilities {values.shape} must be of shape (N, {len(findings)})"
        )
    rows = tuple(
        FindingCalibration(
            finding,
            ece=expected_calibration_error(truth[:, column], values[:, column]),
            # One generator per finding: its floor does not depend on how many images the findings before it have.
            floor=_compute_chance_floor(truth[:, column], values[:, column], np.random.default_rng([seed, column])),
            brier=brier_score(truth[:, column], values[:, column]),
            curve=_build_curve(truth[:, column], values[:, column]),
        )
        for column, finding in enumerate(findings)
    )
    return CalibrationReport(
        method=method,
        findings=rows,
        macro_ece=_mean_of_defined([row.ece for row in rows]),
        macro_floor=_mean_of_defined([row.floor for row in rows]),
        macro_brier=_mean_of_defined([row.brier for row in rows]),
        pooled=_build_curve(truth.ravel(), values.ravel()),
    )


def expected_calibration_error(targets: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """Mean gap between probability and observed frequency, over equal-width bins weighted by their images.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015, binary form. Bin b of B
    holds b/B <= p < (b+1)/B; the last also holds p = 1.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,) in [0, 1].
        bins: Number of bins, 1 or more.

    Returns:
        In [0, 1]; NaN if no target is known.

    Raises:
        ValueError: `bins` < 1, a probability is NaN or outside [0, 1], the shapes differ, or a target is neither 0 nor
            1.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins} must be 1 or more")
    positive, values = _select_probabilities(targets, probabilities)
    if not values.size:
        return float("nan")
    # (mean probability - frequency) x images of a bin equals the sum of its differences.
    gaps = np.bincount(_assign_bins(values, bins), weights=values - positive, minlength=bins)
    return float(np.abs(gaps).sum() / len(values))


def brier_score(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference of probability and target (Brier, 1950), in [0, 1].

    Arguments, NaN and errors as in `expected_calibration_error`.
    """
    positive, values = _select_probabilities(targets, probabilities)
    return float(np.mean((values - positive) ** 2)) if values.size else float("nan")


def _compute_chance_floor(targets: ArrayLike, probabilities: ArrayLike, generator: np.random.Generator) -> float:
    """Average the ECE over `_DRAWS` sets of labels drawn from the known images' probabilities; NaN without any."""
    _, values = _select_probabilities(targets, probabilities)
    if not values.size:
        return float("nan")
    # Sorted, so that each bin is one stretch of a draw's labels.
    values = np.sort(values)
    starts = np.unique(_assign_bins(values, BINS), return_index=True)[1]
    expected = np.add.reduceat(values, starts)
    summed = 0.0
    for chunk in split_replicates(_DRAWS, len(values)):
        labels = generator.random((chunk.stop - chunk.start, len(values))) < values
        positives = np.add.reduceat(labels, starts, axis=1, dtype=np.int64)
        summed += float(np.abs(expected - positives).sum())
    return summed / len(values) / _DRAWS


def _build_curve(targets: ArrayLike, probabilities: ArrayLike) -> Curve:
    positive, values = _select_probabilities(targets, probabilities)
    bin_of_image = _assign_bins(values, BINS)
    images = np.bincount(bin_of_image, minlength=BINS)
    filled = images > 0
    predicted, observed = (
        np.bincount(bin_of_image, weights=each, minlength=BINS)[filled] / images[filled] for each in (values, positive)
    )
    return Curve(tuple(predicted.tolist()), tuple(observed.tolist()), tuple(images[filled].tolist()))


def _assign_bins(values: Floats, bins: int) -> NDArray[np.intp]:
    return np.minimum((values * bins).astype(np.intp), bins - 1)


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _select_probabilities(targets: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    _, positive, values = select_known(targets, probabilities)
    outside = values[(values < 0) | (values > 1)]
    if outside.size:
        raise ValueError(f"probability {outside[0]} must be in [0, 1]")
    return positive, values
