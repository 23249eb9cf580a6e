"""Calibration: turns a network's logits into probabilities that match observed frequencies.

A calibration has `method`, `fallback`, `apply` (logits to probabilities), `shift_log_odds` and `to_dict`. `from_dict`
reads any calibration. A `Confidence` tells what val says about its probabilities.
"""

from chestai.calibration.bands import Band
from chestai.calibration.confidence import BandArrays, Confidence, LabelSets, fit_confidence
from chestai.calibration.fitting import fit
from chestai.calibration.isotonic import IsotonicCalibration
from chestai.calibration.linear import LinearCalibration, uncalibrated
from chestai.calibration.methods import METHODS, AnyCalibration, from_dict
from chestai.calibration.prior import find_shifts, shift_prevalence

__all__ = [
    "METHODS",
    "AnyCalibration",
    "Band",
    "BandArrays",
    "Confidence",
    "IsotonicCalibration",
    "LabelSets",
    "LinearCalibration",
    "find_shifts",
    "fit",
    "fit_confidence",
    "from_dict",
    "shift_prevalence",
    "uncalibrated",
]
