"""Calibrations that are a line in log odds: none, Platt's and the temperature."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from chestai.calibration.logit import Floats, sigmoid

LINEAR = ("none", "platt", "temperature")


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(slope * logit + intercept), for each finding in vocabulary order.

    Slopes are positive, so calibration never changes a ranking.

    Attributes:
        slope: one for each finding, positive.
        intercept: one for each finding.
        fallback: which findings carry the prior correction of `fit`; empty where nothing was fitted.
        method: how the lines were found, one of `LINEAR`.

    Raises:
        ValueError: the lengths differ, a value is not finite, a slope is not positive, or the method is unknown.
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
        """(N, F) logits of any float type -> (N, F) float64 probabilities in [0, 1].

        Raises:
            ValueError: the logits are not of shape (N, F).
        """
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.slope):
            raise ValueError(f"logits {values.shape} must be of shape (N, {len(self.slope)})")
        return sigmoid(values * self.slope + self.intercept)

    def moved(self, by: Sequence[float]) -> Self:
        """The same with each finding's log odds moved by (F,) finite values."""
        return replace(self, intercept=tuple(old + float(more) for old, more in zip(self.intercept, by, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "method": self.method,
            "slope": list(self.slope),
            "intercept": list(self.intercept),
            "fallback": list(self.fallback),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """The inverse of `to_dict`; without "method", as cards once were, it is Platt's.

        Raises:
            ValueError: the method is none of `LINEAR`, or what `Calibration` raises.
            KeyError: a value is missing.
        """
        method = values.get("method", "platt")
        if method not in LINEAR:  # before the values, which another method calls otherwise
            raise ValueError(f"calibration method {method!r} must be one of {', '.join(LINEAR)}")
        return cls(tuple(values["slope"]), tuple(values["intercept"]), tuple(values["fallback"]), method)


def uncalibrated(findings: int) -> Calibration:
    """The plain sigmoid of the logits, for that many findings."""
    return Calibration((1.0,) * findings, (0.0,) * findings, method="none")
