"""Probabilities and their log odds."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def sigmoid(log_odds: Floats) -> Floats:
    """Log odds of any shape -> probabilities in [0, 1]; 0 or 1 only where float64 has nothing between."""
    with np.errstate(over="ignore"):  # exp(-z) of very low log odds is inf, and 1 / inf the right 0
        return 1 / (1 + np.exp(-log_odds))


def log_odds(probabilities: ArrayLike) -> Floats:
    """Probabilities in (0, 1), of any shape -> log(p / (1 - p)); NaN stays NaN."""
    values = np.asarray(probabilities, dtype=np.float64)
    return np.log(values) - np.log1p(-values)
