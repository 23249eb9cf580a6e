"""Probabilities and their log odds."""

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.masking import Floats


def sigmoid(log_odds: Floats) -> Floats:
    """Turn log odds of any shape into probabilities in [0, 1]; 0 or 1 only where float64 has nothing closer."""
    with np.errstate(over="ignore"):  # exp(-z) of very low log odds is inf, and 1 / inf is 0
        return 1 / (1 + np.exp(-log_odds))


def log_odds(probabilities: ArrayLike) -> Floats:
    """Turn probabilities in (0, 1) of any shape into log(p / (1 - p)); NaN stays NaN."""
    values = np.asarray(probabilities, dtype=np.float64)
    return np.log(values) - np.log1p(-values)


def multiply_odds(probabilities: Floats, shift: float) -> Floats:
    """Add `shift` to the log odds of probabilities in [0, 1] of any shape; 0 and 1 stay."""
    odds = np.exp(shift) * probabilities
    return odds / (odds + (1 - probabilities))
