"""Calibrations that are a line in log odds: none, Platt scaling and temperature scaling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from chestai.calibration.logit import sigmoid
from chestai.metrics.masking import Floats

LINEAR = ("none", "platt", "temperature")


@dataclass(frozen=True)
class LinearCalibration:
    """probability = sigmoid(slope * logit + intercept), for each finding in vocabulary order.

    Slopes are positive, so calibration never changes a ranking.

    Attributes:
        slope: One per finding, positive.
        intercept: One per finding.
        fallback: Which findings carry the prior correction of `fit`; empty if nothing was fitted.
        method: How the lines were found, one of `LINEAR`.

    Raises:
        ValueError: The lengths differ, a value is not finite, a slope is not positive, or the method is unknown.
    """

    slope: tuple[float, ...]
    intercept: tuple[float, ...]
    fallback: tuple[bool, ...] = ()
    method: str = "platt"

    def __post_init__(self) -> None:
        if self.method not in LINEAR:
            raise ValueError(f"calibration method {self.method!r} must be one of {', '.join(LINEAR)}")
        if len(self.intercept) != len(self.slope) or len(self.fallback) not in (0, len(self.slope)):
            raise ValueError("slope, intercept and fallback must have one value for each finding")
        for slope, intercept in zip(self.slope, self.intercept, strict=True):
            if not (np.isfinite(slope) and slope > 0 and np.isfinite(intercept)):
                raise ValueError(f"slope {slope} must be positive and finite, intercept {intercept} finite")

    def apply(self, logits: ArrayLike) -> Floats:
        """Turn (N, F) logits of any float type into (N, F) float64 probabilities in [0, 1].

        Raises:
            ValueError: The logits are not of shape (N, F).
        """
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.slope):
            raise ValueError(f"logits {values.shape} must be of shape (N, {len(self.slope)})")
        return sigmoid(values * self.slope + self.intercept)

    def shift_log_odds(self, shifts: Sequence[float]) -> Self:
        """Return a copy with (F,) finite values added to the findings' log odds."""
        intercept = tuple(old + float(shift) for old, shift in zip(self.intercept, shifts, strict=True))
        return replace(self, intercept=intercept)

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON."""
        return {
            "method": self.method,
            "slope": list(self.slope),
            "intercept": list(self.intercept),
            "fallback": list(self.fallback),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LinearCalibration":
        """The inverse of `to_dict`. Older cards have no "method"; theirs is Platt's.

        Raises:
            ValueError: The method is not one of `LINEAR`, or what the constructor raises.
            KeyError: A value is missing.
        """
        method = values.get("method", "platt")
        if method not in LINEAR:  # checked first, because other methods name their values differently
            raise ValueError(f"calibration method {method!r} must be one of {', '.join(LINEAR)}")
        return cls(tuple(values["slope"]), tuple(values["intercept"]), tuple(values["fallback"]), method)


def uncalibrated(findings: int) -> LinearCalibration:
    """Return the plain sigmoid of the logits, for this number of findings."""
    return LinearCalibration((1.0,) * findings, (0.0,) * findings, method="none")
