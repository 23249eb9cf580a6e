"""Platt scaling: for each finding the best-fitting line in log odds.

Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods", 1999; here
one slope and one intercept for each finding.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chestai.calibration.linear import LinearCalibration
from chestai.metrics.masking import Floats


def fit_platt(pairs: Sequence[tuple[NDArray[np.bool_], Floats]], prior: Sequence[float]) -> LinearCalibration:
    """Fit one line per finding; `fit` with method "platt".

    Args:
        pairs: Each finding's (K,) known targets and their (K,) finite logits.
        prior: Each finding's intercept if it falls back.
    """
    fitted = [_fit_line(positive, logits) for positive, logits in pairs]
    lines = [line or (1.0, intercept) for line, intercept in zip(fitted, prior, strict=True)]
    return LinearCalibration(
        slope=tuple(slope for slope, _ in lines),
        intercept=tuple(intercept for _, intercept in lines),
        fallback=tuple(line is None for line in fitted),
    )


def _fit_line(positive: NDArray[np.bool_], logits: Floats) -> tuple[float, float] | None:
    """Fit one finding's slope and intercept; None if they are undefined or would reverse the ranking."""
    from sklearn.linear_model import LogisticRegression  # takes two seconds to load, and applying does not need it

    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0 or np.ptp(logits) == 0:
        return None
    # Platt's smoothed targets keep the fit finite if the logits separate the classes.
    soft = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    mean, spread = logits.mean(), logits.std()
    standard = (logits - mean) / spread
    # A soft target t counts as a positive image of weight t and a negative one of weight 1 - t.
    model = LogisticRegression(C=1e9, solver="newton-cholesky", tol=1e-9)
    model.fit(
        np.concatenate([standard, standard])[:, None],
        np.repeat([1, 0], len(standard)),
        sample_weight=np.concatenate([soft, 1 - soft]),
    )
    slope = float(model.coef_[0, 0] / spread)
    intercept = float(model.intercept_[0] - slope * mean)
    return (slope, intercept) if slope > 0 else None
