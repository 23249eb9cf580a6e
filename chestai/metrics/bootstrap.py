"""The patient-clustered bootstrap.

Images of one patient resemble each other, so resampling images would make intervals too narrow: whole
patients are drawn instead (the cluster bootstrap; Field & Welsh, "Bootstrapping clustered data", 2007).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.ranking import chunks

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, replicates: NDArray[np.float64]) -> "Estimate":
        """A point estimate with the percentile interval of its (B,) bootstrap replicates."""
        return cls(float(value), *percentile_interval(replicates))

    @classmethod
    def of_rows(cls, values: NDArray[np.float64]) -> "Estimate":
        """From (1 + B,) values measured under `point_and_replicates`: the point estimate, then the replicates."""
        return cls.of(values[0], values[1:])

    def to_dict(self) -> dict[str, float | None]:
        """JSON-able; NaN becomes None."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(value) else value for name, value in values.items()}


def clustered_weights(patients: ArrayLike, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Bootstrap replicates as weights: how often each image's patient was drawn.

    Each replicate draws as many patients as there are, with replacement; each brings all its images.

    Args:
        patients: (N,) patient ids of any one sortable type.
        resamples: how many replicates.
        seed: the same seed gives the same replicates.

    Yields:
        (B, N) float64 arrays of whole numbers; their rows add up to `resamples`.
    """
    ids, patient_of_image = np.unique(np.asarray(patients), return_inverse=True)
    generator = np.random.default_rng(seed)
    for chunk in chunks(resamples, len(patient_of_image)):
        replicates = chunk.stop - chunk.start
        drawn = generator.integers(len(ids), size=(replicates, len(ids)))
        # One bincount for the whole chunk: replicate r counts its patients in cells r * len(ids) and up.
        cells = drawn + len(ids) * np.arange(replicates)[:, None]
        times = np.bincount(cells.ravel(), minlength=replicates * len(ids)).reshape(replicates, len(ids))
        yield np.take(times.astype(np.float64), patient_of_image, axis=1)


def point_and_replicates(patients: ArrayLike, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """The weights of a measurement with intervals: a row of ones, the point estimate, then the bootstrap's.

    With fewer than two patients no replicates follow: one patient resampled is always itself, and an interval
    of no width would claim certainty.

    Args, Yields: as `clustered_weights`; one row more in all.

    Raises:
        ValueError: patients are not of shape (N,) or resamples is negative.
    """
    ids = np.asarray(patients)
    if ids.ndim != 1:
        raise ValueError(f"patients {ids.shape} must be of shape (N,)")
    if resamples < 0:
        raise ValueError(f"resamples = {resamples} must be 0 or more")
    replicates = resamples if len(np.unique(ids)) > 1 else 0
    return chain([np.ones((1, len(ids)))], clustered_weights(ids, replicates, seed))


def percentile_interval(replicates: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """(low, high) quantiles of the (B,) replicates that are defined; (NaN, NaN) when none is."""
    defined = replicates[~np.isnan(replicates)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
