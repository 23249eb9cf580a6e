"""All calibration methods, and how to read any calibration."""

from typing import Any

from chestai.calibration.isotonic import IsotonicCalibration
from chestai.calibration.linear import LINEAR, LinearCalibration

AnyCalibration = LinearCalibration | IsotonicCalibration

# The methods that `fit` can fit.
METHODS = ("platt", "temperature", "isotonic")


def from_dict(values: dict[str, Any]) -> AnyCalibration:
    """The inverse of any calibration's `to_dict`. Older cards have no "method"; theirs is Platt's.

    Raises:
        ValueError: The method is unknown, or a value is missing, of a wrong type or out of its range.
    """
    method = values.get("method", "platt")
    if method not in (*LINEAR, "isotonic"):
        raise ValueError(f"calibration method {method!r} must be one of {', '.join((*LINEAR, 'isotonic'))}")
    try:
        return IsotonicCalibration.from_dict(values) if method == "isotonic" else LinearCalibration.from_dict(values)
    except KeyError as error:
        raise ValueError(f"the calibration ({method}) lacks {error}") from None
    except TypeError as error:
        raise ValueError(f"the calibration ({method}) has a value of a wrong type: {error}") from None
