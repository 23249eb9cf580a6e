"""Platt scaling: from a network's logits to probabilities that mean something.

Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods",
1999; here one slope and one intercept for each finding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.known import known


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(slope * logit + intercept), for each finding in vocabulary order.

    Slopes are positive, so calibration never changes a ranking.

    Attributes:
        slope: one for each finding, positive.
        intercept: one for each finding.
        fallback: which findings carry the prior correction of `fit`; empty where nothing was fitted.

    Raises:
        ValueError: the lengths differ, a value is not finite or a slope is not positive.
    """

    slope: tuple[float, ...]
    intercept: tuple[float, ...]
    fallback: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if len(self.intercept) != len(self.slope) or len(self.fallback) not in (0, len(self.slope)):
            raise ValueError("slope, intercept and fallback must have one value for each finding")
        for slope, intercept in zip(self.slope, self.intercept, strict=True):
            if not (np.isfinite(slope) and slope > 0 and np.isfinite(intercept)):
                raise ValueError(f"slope {slope} must be positive and finite, intercept {intercept} finite")

    def apply(self, logits: ArrayLike) -> NDArray[np.float64]:
        """(N, F) logits of any float type -> (N, F) float64 probabilities in [0, 1].

        Raises:
            ValueError: the logits are not of shape (N, F).
        """
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.slope):
            raise ValueError(f"logits {values.shape} must be of shape (N, {len(self.slope)})")
        with np.errstate(over="ignore"):  # exp(-z) of a very low logit is inf, and 1 / inf the right 0
            return 1 / (1 + np.exp(-(values * self.slope + self.intercept)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"slope": list(self.slope), "intercept": list(self.intercept), "fallback": list(self.fallback)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """The inverse of `to_dict`."""
        return cls(tuple(values["slope"]), tuple(values["intercept"]), tuple(values["fallback"]))


def fit(logits: ArrayLike, targets: ArrayLike, pos_weight: ArrayLike) -> Calibration:
    """Fit a calibration on validation images.

    A finding falls back to slope 1 and intercept -log(pos_weight) where its fit is undefined (no known
    positive, no known negative, or logits all equal) or its slope is not positive. A loss that weighs
    positives by pos_weight moves the logits up by log(pos_weight); the fallback takes that back.

    Args:
        logits: (N, F) finite.
        targets: (N, F) 1, 0, or NaN for not known.
        pos_weight: (F,) the weights of positives in the training loss; 1 where it was unweighted.

    Raises:
        ValueError: shapes do not fit, a logit of a known target is not finite, a target is neither 0 nor 1,
            or a pos_weight is not positive and finite.
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    positive_weights = np.asarray(pos_weight, dtype=np.float64)
    if values.ndim != 2 or values.shape != truth.shape or positive_weights.shape != values.shape[1:]:
        raise ValueError(
            f"logits {values.shape} and targets {truth.shape} must be of shape (N, F), "
            f"pos_weight {positive_weights.shape} of shape (F,)"
        )
    if not (np.isfinite(positive_weights) & (positive_weights > 0)).all():
        raise ValueError(f"pos_weight {positive_weights.tolist()} must be positive and finite")
    fitted = [_fit_one(values[:, column], truth[:, column]) for column in range(values.shape[1])]
    prior = [(1.0, float(np.log(1 / weight))) for weight in positive_weights]
    lines = [line or correction for line, correction in zip(fitted, prior, strict=True)]
    return Calibration(
        slope=tuple(slope for slope, _ in lines),
        intercept=tuple(intercept for _, intercept in lines),
        fallback=tuple(line is None for line in fitted),
    )


def _fit_one(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[float, float] | None:
    """Slope and intercept of one finding; None where they are undefined or would reverse the ranking."""
    from sklearn.linear_model import LogisticRegression  # two seconds to load, and applying needs none of it

    _, positive, values = known(targets, logits)
    if not np.isfinite(values).all():
        raise ValueError(f"logit {values[~np.isfinite(values)][0]} must be finite")
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0 or np.ptp(values) == 0:
        return None
    # Platt's smoothed targets keep the fit finite where the logits separate the classes.
    soft = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    mean, spread = values.mean(), values.std()
    standard = (values - mean) / spread
    # A soft target t is an image seen as positive with weight t and as negative with weight 1 - t.
    model = LogisticRegression(C=1e9, solver="newton-cholesky", tol=1e-9)
    model.fit(
        np.concatenate([standard, standard])[:, None],
        np.repeat([1, 0], len(standard)),
        sample_weight=np.concatenate([soft, 1 - soft]),
    )
    slope = float(model.coef_[0, 0] / spread)
    intercept = float(model.intercept_[0] - slope * mean)
    return (slope, intercept) if slope > 0 else None
