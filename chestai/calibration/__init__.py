"""Calibration: turns a network's logits into probabilities that match observed frequencies.

A calibration has `method`, `fallback`, `apply` (logits to probabilities), `shift_log_odds` and `to_dict`. `from_dict`
reads any calibration.
"""

from chestai.calibration.fitting import fit
from chestai.calibration.isotonic import IsotonicCalibration
from chestai.calibration.linear import LinearCalibration, uncalibrated
from chestai.calibration.methods import METHODS, AnyCalibration, from_dict
from chestai.calibration.prior import shift_prevalence

__all__ = [
    "METHODS",
    "AnyCalibration",
    "IsotonicCalibration",
    "LinearCalibration",
    "fit",
    "from_dict",
    "shift_prevalence",
    "uncalibrated",
]
