"""Temperature scaling: one number for all findings makes a network more or less sure of itself.

Guo et al., "On calibration of modern neural networks", ICML 2017; here for sigmoids instead of a softmax.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chestai.calibration.linear import Calibration
from chestai.calibration.logit import Floats, sigmoid


def fit_temperature(pairs: Sequence[tuple[NDArray[np.bool_], Floats]], prior: Sequence[float]) -> Calibration:
    """One temperature T for the prior-corrected logits of all findings; `fit` with method "temperature".

    Args:
        pairs: for each finding the (K,) known targets and their (K,) finite logits.
        prior: for each finding what its logits are corrected by.

    Returns:
        Slopes 1 / T and intercepts prior / T.
    """
    corrected = [logits + intercept for (_, logits), intercept in zip(pairs, prior, strict=True)]
    positive = np.concatenate([np.empty(0, dtype=bool), *(targets for targets, _ in pairs)])
    slope = _slope(positive, np.concatenate([np.empty(0), *corrected]))
    used = 1.0 if slope is None else slope
    return Calibration(
        slope=(used,) * len(pairs),
        intercept=tuple(used * intercept for intercept in prior),
        fallback=(slope is None,) * len(pairs),
        method="temperature",
    )


def _slope(positive: NDArray[np.bool_], logits: Floats) -> float | None:
    """1 / T of the least mean negative log-likelihood; None where no positive slope has it."""
    if positive.all() or not positive.any() or not logits.any():
        return None
    unit = np.abs(logits).max()
    scaled = logits / unit

    def rise(slope: float) -> float:
        """The derivative of the negative log-likelihood, which is convex: it grows with the slope."""
        return float(np.dot(sigmoid(slope * scaled) - positive, scaled))

    if rise(0) >= 0:
        return None  # the best slope is zero or negative
    steep = next((slope for slope in 2.0 ** np.arange(64) if rise(slope) > 0), None)
    if steep is None:
        return None  # the logits' signs tell all targets: the steeper the better, without end
    low, high = float(steep / 2 if steep > 1 else 0), float(steep)
    for _ in range(100):  # halvings; mostly some fifty leave nothing between
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if rise(middle) > 0 else (middle, high)
    return float(high / unit)
