"""Temperature scaling: one number for all findings makes a network more or less confident.

Guo et al., "On calibration of modern neural networks", ICML 2017; here for sigmoids instead of a softmax.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chestai.calibration.linear import LinearCalibration
from chestai.calibration.logit import sigmoid
from chestai.metrics.masking import Floats


def fit_temperature(pairs: Sequence[tuple[NDArray[np.bool_], Floats]], prior: Sequence[float]) -> LinearCalibration:
    """Fit one temperature T to the prior-corrected logits of all findings; `fit` with method "temperature".

    Args:
        pairs: Each finding's (K,) known targets and their (K,) finite logits.
        prior: Each finding's prior correction, which is added to its logits.

    Returns:
        Slopes 1 / T and intercepts prior / T.
    """
    corrected = [logits + intercept for (_, logits), intercept in zip(pairs, prior, strict=True)]
    positive = np.concatenate([np.empty(0, dtype=bool), *(targets for targets, _ in pairs)])
    slope = _fit_slope(positive, np.concatenate([np.empty(0), *corrected]))
    used = 1.0 if slope is None else slope
    return LinearCalibration(
        slope=(used,) * len(pairs),
        intercept=tuple(used * intercept for intercept in prior),
        fallback=(slope is None,) * len(pairs),
        method="temperature",
    )


def _fit_slope(positive: NDArray[np.bool_], logits: Floats) -> float | None:
    """Find the slope 1 / T with the least mean negative log-likelihood; None if no positive slope has it."""
    if positive.all() or not positive.any() or not logits.any():
        return None
    unit = np.abs(logits).max()
    scaled = logits / unit

    def derivative(slope: float) -> float:
        """Of the negative log-likelihood, which is convex: the derivative grows with the slope."""
        return float(np.dot(sigmoid(slope * scaled) - positive, scaled))

    if derivative(0) >= 0:
        return None  # the best slope is zero or negative
    steep = next((slope for slope in 2.0 ** np.arange(64) if derivative(slope) > 0), None)
    if steep is None:
        return None  # the signs of the logits separate the classes: the steeper the better, without end
    low, high = float(steep / 2 if steep > 1 else 0), float(steep)
    for _ in range(100):  # bisections; about fifty usually leave nothing between
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if derivative(middle) > 0 else (middle, high)
    return float(high / unit)
