"""The patient-clustered bootstrap.

Images of one patient resemble each other, so resampling images would make the intervals too narrow. Whole patients are
drawn instead (the cluster bootstrap; Field & Welsh, "Bootstrapping clustered data", 2007).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.masking import Floats
from chestai.metrics.ranking import split_replicates

CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats) -> "Estimate":
        """Build an estimate from the (1 + B,) values measured under `Bootstrap.weights`, the point estimate first."""
        return cls(float(values[0]), *percentile_interval(values[1:]))

    def to_dict(self) -> dict[str, float | None]:
        """JSON-able; NaN becomes None."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(value) else value for name, value in values.items()}


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: Replicates, 0 or more; with 0 the intervals are NaN.
        seed: The same seed draws the same patients.

    Raises:
        ValueError: `resamples` is negative.
    """

    resamples: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 0:
            raise ValueError(f"resamples = {self.resamples} must be 0 or more")

    def weights(self, patients: ArrayLike) -> Iterator[Floats]:
        """Yield the weights of a measurement: a row of ones for the point estimate, then those of the replicates.

        With fewer than two patients no replicates follow: one patient resampled is always itself, and an interval of no
        width would claim certainty.

        Args:
            patients: (N,) patient ids of any one sortable type.

        Yields:
            (B, N) float64 arrays with 1 + `resamples` rows in all.
        """
        ids = np.asarray(patients)
        replicates = self.resamples if len(np.unique(ids)) > 1 else 0
        return chain([np.ones((1, len(ids)))], clustered_weights(ids, replicates, self.seed))


def estimate_shares(
    hits: NDArray[np.bool_], among: NDArray[np.bool_], patients: ArrayLike, bootstrap: Bootstrap
) -> list[Estimate]:
    """Estimate K shares of images, each over images of its own.

    Args:
        hits: (N, K) which images count.
        among: (N, K) of which images; a share over none is undefined, in the point estimate or in a replicate.
        patients: (N,) patient ids of any one sortable type.
    """
    columns = np.concatenate([hits & among, among], axis=1).astype(np.float64)
    totals = np.concatenate([rows @ columns for rows in bootstrap.weights(patients)])
    part, whole = np.split(totals, 2, axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0: NaN
        return [Estimate.of(share) for share in (part / whole).T]


def clustered_weights(patients: ArrayLike, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield bootstrap replicates as weights: how often each image's patient was drawn.

    Each replicate draws as many patients as there are, with replacement; each brings all its images.

    Args:
        patients: (N,) patient ids of any one sortable type.
        resamples: Number of replicates.
        seed: The same seed gives the same replicates.

    Yields:
        (B, N) float64 arrays of whole numbers, with `resamples` rows in all.
    """
    ids, patient_of_image = np.unique(np.asarray(patients), return_inverse=True)
    generator = np.random.default_rng(seed)
    for chunk in split_replicates(resamples, len(patient_of_image)):
        replicates = chunk.stop - chunk.start
        drawn = generator.integers(len(ids), size=(replicates, len(ids)))
        # One bincount for the whole chunk: replicate r counts its patients in cells r * len(ids) and up.
        cells = drawn + len(ids) * np.arange(replicates)[:, None]
        times = np.bincount(cells.ravel(), minlength=replicates * len(ids)).reshape(replicates, len(ids))
        yield np.take(times.astype(np.float64), patient_of_image, axis=1)


def percentile_interval(replicates: Floats, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Return the (low, high) quantiles of the defined ones of (B,) replicates; (NaN, NaN) if none is defined."""
    defined = replicates[~np.isnan(replicates)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
