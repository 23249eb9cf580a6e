"""Isotonic calibration: for each finding the best-fitting rising curve of any shape.

Zadrozny & Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.calibration.logit import log_odds, sigmoid
from chestai.metrics.masking import Floats


@dataclass(frozen=True)
class IsotonicCalibration:
    """log odds = log odds of a curve + offset, for each finding in vocabulary order.

    The curve, probability over logit, is straight between knots and level beyond the outer ones; without knots it is
    the logit's sigmoid. It never falls, so no two images swap ranks. But on its level stretches images with different
    logits get the same probability and are tied, which changes AUROC and AUPRC.

    Attributes:
        logits: Each finding's knots, ascending; none if it carries the prior correction of `fit`.
        probabilities: Each finding's curve at these knots, in (0, 1), never falling.
        offset: Each finding's offset in log odds; 0 as fitted, the prior correction if there are no knots.

    Raises:
        ValueError: The lengths differ, a value is not finite or outside its range, or knots are out of order.
    """

    logits: tuple[tuple[float, ...], ...]
    probabilities: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.logits) == len(self.probabilities) == len(self.offset):
            raise ValueError("knots' logits, probabilities and offset must have one entry for each finding")
        for x, y, offset in zip(self.logits, self.probabilities, self.offset, strict=True):
            if len(x) != len(y):
                raise ValueError(f"a finding has knots of {len(x)} logits and {len(y)} probabilities")
            if not np.isfinite([*x, offset]).all():
                raise ValueError("knots' logits and offset must be finite")
            if any(after <= before for before, after in pairwise(x)):
                raise ValueError("knots' logits must ascend")
            if not all(0 < probability < 1 for probability in y):
                raise ValueError("knots' probabilities must be in (0, 1)")
            if any(after < before for before, after in pairwise(y)):
                raise ValueError("knots' probabilities must not fall")

    @property
    def method(self) -> str:
        """The name of the method."""
        return "isotonic"

    @property
    def fallback(self) -> tuple[bool, ...]:
        """Which findings carry the prior correction of `fit`."""
        return tuple(not knots for knots in self.logits)

    def apply(self, logits: ArrayLike) -> Floats:
        """Turn (N, F) logits of any float type into (N, F) float64 probabilities in [0, 1].

        Raises:
            ValueError: The logits are not of shape (N, F).
        """
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.offset):
            raise ValueError(f"logits {values.shape} must be of shape (N, {len(self.offset)})")
        result = np.empty(values.shape)
        for column, (x, y, offset) in enumerate(zip(self.logits, self.probabilities, self.offset, strict=True)):
            result[:, column] = _apply_curve(values[:, column], np.array(x), np.array(y), offset)
        return result

    def shift_log_odds(self, shifts: Sequence[float]) -> Self:
        """Return a copy with (F,) finite values added to the findings' log odds."""
        return replace(self, offset=tuple(old + float(shift) for old, shift in zip(self.offset, shifts, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON."""
        return {
            "method": self.method,
            "logits": [list(knots) for knots in self.logits],
            "probabilities": [list(knots) for knots in self.probabilities],
            "offset": list(self.offset),
            "fallback": list(self.fallback),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "IsotonicCalibration":
        """The inverse of `to_dict`.

        Raises:
            ValueError: What the constructor raises.
            KeyError: A value is missing.
        """
        x, y = (tuple(tuple(knots) for knots in values[name]) for name in ("logits", "probabilities"))
        return cls(x, y, tuple(values["offset"]))


def fit_isotonic(pairs: Sequence[tuple[NDArray[np.bool_], Floats]], prior: Sequence[float]) -> IsotonicCalibration:
    """Fit one curve per finding; `fit` with method "isotonic".

    Args:
        pairs: Each finding's (K,) known targets and their (K,) finite logits.
        prior: Each finding's offset if it falls back.
    """
    curves = [_fit_knots(positive, logits) for positive, logits in pairs]
    return IsotonicCalibration(
        logits=tuple(x for x, _ in curves),
        probabilities=tuple(y for _, y in curves),
        offset=tuple(0.0 if x else offset for (x, _), offset in zip(curves, prior, strict=True)),
    )


def _fit_knots(positive: NDArray[np.bool_], logits: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fit one finding's curve; no knots if it is undefined, or level and so ignores the logits."""
    from sklearn.isotonic import IsotonicRegression  # slow to load, and applying does not need it

    if positive.all() or not positive.any():
        return (), ()
    # The outermost steps are often all negatives or all positives, for which 0 and 1 would be too sure (with infinite
    # log odds): by Laplace's rule of succession, n images support nothing closer to either than 1 / (n + 2).
    least = 1 / (len(logits) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least).fit(logits, positive.astype(np.float64))
    x, y = model.X_thresholds_, model.y_thresholds_
    return (tuple(x.tolist()), tuple(y.tolist())) if y[-1] > y[0] else ((), ())


def _apply_curve(values: Floats, x: Floats, y: Floats, offset: float) -> Floats:
    """Turn one finding's (N,) logits into (N,) probabilities."""
    if not x.size:
        return sigmoid(values + offset)
    # Rounding may lift a value just below a knot above the knot's own.
    next_knot = np.minimum(np.searchsorted(x, values), len(x) - 1)
    probabilities = np.minimum(np.interp(values, x, y), y[next_knot])
    return sigmoid(log_odds(probabilities) + offset) if offset else probabilities
