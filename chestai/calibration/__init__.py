"""From a network's logits to probabilities that mean something.

A calibration has `method`, `fallback`, `apply` (logits to probabilities), `moved` and `to_dict`; `from_dict` reads any.
"""

from chestai.calibration.fitting import fit
from chestai.calibration.isotonic import Isotonic
from chestai.calibration.linear import Calibration, uncalibrated
from chestai.calibration.methods import METHODS, AnyCalibration, from_dict
from chestai.calibration.prior import shift

__all__ = [
    "METHODS",
    "AnyCalibration",
    "Calibration",
    "Isotonic",
    "fit",
    "from_dict",
    "shift",
    "uncalibrated",
]
