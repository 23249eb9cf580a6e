"""Isotonic calibration: for each finding the rising curve that fits best, of whatever form.

Zadrozny & Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.calibration.logit import Floats, log_odds, sigmoid


@dataclass(frozen=True)
class Isotonic:
    """log odds = log odds of a curve + offset, for each finding in vocabulary order.

    The curve runs straight, in probability over logit, from knot to knot and level beyond the outer ones; without
    knots it is the logit's sigmoid. It never falls, so no pair of images changes places. But it has level stretches:
    images with different logits get one probability and are tied, which changes AUROC and AUPRC.

    Attributes:
        logits: for each finding its knots, ascending; none where it carries the prior correction of `fit`.
        probabilities: for each finding its curve at these knots, in (0, 1), never falling.
        offset: for each finding, in log odds; 0 as fitted, the prior correction where there are no knots.

    Raises:
        ValueError: the lengths differ, a value is not finite or outside its range, or knots are out of order.
    """

    logits: tuple[tuple[float, ...], ...]
    probabilities: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.logits) == len(self.probabilities) == len(self.offset):
            raise ValueError("knots' logits, probabilities and offset must have one entry for each finding")
        for x, y, offset in zip(self.logits, self.probabilities, self.offset, strict=True):
            if len(x) != len(y):
                raise ValueError(f"{len(x)} logits and {len(y)} probabilities of one finding's knots must be as many")
            if not np.isfinite([*x, offset]).all():
                raise ValueError("knots' logits and offset must be finite")
            if any(after <= before for before, after in pairwise(x)):
                raise ValueError("knots' logits must ascend")
            if not all(0 < one < 1 for one in y):
                raise ValueError("knots' probabilities must be in (0, 1)")
            if any(after < before for before, after in pairwise(y)):
                raise ValueError("knots' probabilities must not fall")

    @property
    def method(self) -> str:
        """As in `Calibration`."""
        return "isotonic"

    @property
    def fallback(self) -> tuple[bool, ...]:
        """Which findings carry the prior correction of `fit`."""
        return tuple(not knots for knots in self.logits)

    def apply(self, logits: ArrayLike) -> Floats:
        """(N, F) logits of any float type -> (N, F) float64 probabilities in [0, 1].

        Raises:
            ValueError: the logits are not of shape (N, F).
        """
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.offset):
            raise ValueError(f"logits {values.shape} must be of shape (N, {len(self.offset)})")
        result = np.empty(values.shape)
        for column, (x, y, offset) in enumerate(zip(self.logits, self.probabilities, self.offset, strict=True)):
            result[:, column] = _curve(values[:, column], np.array(x), np.array(y), offset)
        return result

    def moved(self, by: Sequence[float]) -> Self:
        """The same with each finding's log odds moved by (F,) finite values."""
        return replace(self, offset=tuple(old + float(more) for old, more in zip(self.offset, by, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "method": self.method,
            "logits": [list(knots) for knots in self.logits],
            "probabilities": [list(knots) for knots in self.probabilities],
            "offset": list(self.offset),
            "fallback": list(self.fallback),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Isotonic":
        """The inverse of `to_dict`.

        Raises:
            ValueError: what `Isotonic` raises.
            KeyError: a value is missing.
        """
        x, y = (tuple(tuple(knots) for knots in values[name]) for name in ("logits", "probabilities"))
        return cls(x, y, tuple(values["offset"]))


def fit_isotonic(pairs: Sequence[tuple[NDArray[np.bool_], Floats]], prior: Sequence[float]) -> Isotonic:
    """One curve a finding; `fit` with method "isotonic".

    Args:
        pairs: for each finding the (K,) known targets and their (K,) finite logits.
        prior: for each finding the offset of the fallback.
    """
    curves = [_knots(positive, logits) for positive, logits in pairs]
    return Isotonic(
        logits=tuple(x for x, _ in curves),
        probabilities=tuple(y for _, y in curves),
        offset=tuple(0.0 if x else offset for (x, _), offset in zip(curves, prior, strict=True)),
    )


def _knots(positive: NDArray[np.bool_], logits: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """One finding's curve; no knots where it is undefined, or level and so blind to the logits."""
    from sklearn.isotonic import IsotonicRegression  # slow to load, and applying needs none of it

    if positive.all() or not positive.any():
        return (), ()
    # The outermost steps are often all negatives or all positives, of which 0 and 1 would be too sure (and their log
    # odds infinite): n images bear out no more than 1 / (n + 2) from either, Laplace's rule of succession.
    least = 1 / (len(logits) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least).fit(logits, positive.astype(np.float64))
    x, y = model.X_thresholds_, model.y_thresholds_
    return (tuple(x.tolist()), tuple(y.tolist())) if y[-1] > y[0] else ((), ())


def _curve(values: Floats, x: Floats, y: Floats, offset: float) -> Floats:
    """One finding's (N,) logits -> (N,) probabilities."""
    if not x.size:
        return sigmoid(values + offset)
    # Rounding may carry a value just below a knot over that knot's own.
    next_knot = np.minimum(np.searchsorted(x, values), len(x) - 1)
    probabilities = np.minimum(np.interp(values, x, y), y[next_knot])
    return sigmoid(log_odds(probabilities) + offset) if offset else probabilities
