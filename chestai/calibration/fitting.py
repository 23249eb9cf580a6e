"""Fits a calibration to validation images, by any method."""

from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.calibration.isotonic import IsotonicCalibration, fit_isotonic
from chestai.calibration.linear import LinearCalibration
from chestai.calibration.methods import METHODS, AnyCalibration
from chestai.calibration.platt import fit_platt
from chestai.calibration.temperature import fit_temperature
from chestai.metrics.masking import Floats, select_known


@overload
def fit(
    logits: ArrayLike, targets: ArrayLike, pos_weight: ArrayLike, method: Literal["platt", "temperature"] = "platt"
) -> LinearCalibration: ...
@overload
def fit(
    logits: ArrayLike, targets: ArrayLike, pos_weight: ArrayLike, method: Literal["isotonic"]
) -> IsotonicCalibration: ...
@overload
def fit(logits: ArrayLike, targets: ArrayLike, pos_weight: ArrayLike, method: str) -> AnyCalibration: ...
def fit(logits: ArrayLike, targets: ArrayLike, pos_weight: ArrayLike, method: str = "platt") -> AnyCalibration:
    """Fit a calibration on validation images.

    A loss that weighs positives by pos_weight moves the logits up by log(pos_weight). The prior correction undoes that:
    slope 1 and intercept -log(pos_weight). It is the fallback if a fit is undefined or would carry no information:

    - "platt" fits a line for each finding. A finding falls back without a known positive or a known negative, if all
      its logits are equal, and if its slope is not positive.
    - "temperature" fits one T to the prior-corrected logits of all findings together, and divides by it. All fall back
      (T = 1) without any known positive or negative, and if no positive and finite T is the best.
    - "isotonic" fits a rising curve for each finding, its probabilities at least 1 / (n + 2) away from 0 and 1 for n
      known images. A finding falls back without a known positive or a known negative, and if its curve is level. It
      makes ties: see `IsotonicCalibration`.

    Args:
        logits: (N, F) finite.
        targets: (N, F) 1, 0, or NaN for not known.
        pos_weight: (F,) weights of positives in the training loss; 1 if it was unweighted.
        method: One of `METHODS`.

    Raises:
        ValueError: The shapes do not fit, a logit of a known target is not finite, a target is neither 0 nor 1, a
            pos_weight is not positive and finite, or the method is unknown.
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
    pairs = [_select_pairs(truth[:, column], values[:, column]) for column in range(values.shape[1])]
    prior = np.log(1 / positive_weights).tolist()  # 0, not -0, for weight 1
    if method == "platt":
        return fit_platt(pairs, prior)
    if method == "temperature":
        return fit_temperature(pairs, prior)
    if method == "isotonic":
        return fit_isotonic(pairs, prior)
    raise ValueError(f"calibration method {method!r} must be one of {', '.join(METHODS)}")


def _select_pairs(targets: Floats, logits: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Return the (K,) bool known targets of one finding and their (K,) logits."""
    _, positive, values = select_known(targets, logits)
    if not np.isfinite(values).all():
        raise ValueError(f"logit {values[~np.isfinite(values)][0]} must be finite")
    return positive, values
