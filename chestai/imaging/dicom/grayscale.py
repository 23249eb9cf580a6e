"""Stored DICOM pixel values -> 8-bit grey levels, the chain of PS3.3 for grey images.

Modality LUT (C.11.1), VOI LUT (C.11.2), polarity (C.7.6.3.1.2), padding (C.7.5.1.1.2). All is worked out once for each
value that a pixel can have, at most 65,536, so it is exact in float64 and costs the image one look-up.
"""

import math
from collections.abc import MutableSequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from chestai.imaging.errors import Unreadable

Stored = NDArray[np.integer[Any]]
Values = NDArray[np.float64]


def to_grey(dataset: Dataset, stored: Stored) -> NDArray[np.uint8]:
    """Grey levels of an image: 0 is black, 255 white, whatever the file's polarity; padding is black.

    Args:
        dataset: the header.
        stored: values of shape (H, W), 8 or 16 bit, signed or not.

    Raises:
        Unreadable: a window or look-up table that the standard does not allow, or that shows nothing of the image.
    """
    codes = stored.view(f"u{stored.itemsize}")  # the bit patterns; row c of every table below is for pattern c
    values = _stored_values(dataset, stored.dtype)
    padding = _padding(dataset, values)
    physical = _modality(dataset, values.astype(np.float64))
    shown = _of_interest(dataset, physical)
    if shown is None:
        shown = _full_range(physical, _seen(codes) & ~padding)
    if not (np.isfinite(physical).all() and np.isfinite(shown).all()):
        raise Unreadable("undecodable", "the header's grey scale has no finite values")
    levels = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    if _is_inverse(dataset):
        levels = 255 - levels
    levels[padding] = 0
    used = _seen(codes) & ~padding
    if len(np.unique(values[used])) > 1 and len(np.unique(levels[used])) == 1:
        raise Unreadable("undecodable", "the header's grey scale leaves one grey level of the image")
    grey = np.empty(stored.shape, np.uint8)
    for row, patterns in zip(grey, codes, strict=True):  # by rows: NumPy makes 8 bytes of each index
        row[:] = levels[patterns]
    return grey


def first(dataset: Dataset, keyword: str) -> Any:
    """The first value of an element; None where it is absent or empty."""
    value = dataset.get(keyword)
    if isinstance(value, MutableSequence):
        value = value[0] if value else None
    return None if value == "" else value


def _stored_values(dataset: Dataset, dtype: np.dtype[Any]) -> Stored:
    """The value of each bit pattern. Bits above Bits Stored are not part of it: old files keep overlays there."""
    size = 8 * dtype.itemsize
    spare = max(0, size - int(first(dataset, "BitsStored") or size))
    patterns = np.arange(2**size, dtype=f"u{dtype.itemsize}")
    values: Stored = (patterns << spare).view(dtype) >> spare
    return values


def _padding(dataset: Dataset, values: Stored) -> NDArray[np.bool_]:
    """Which stored values are padding: Pixel Padding Value, or all from it to Pixel Padding Range Limit."""
    value, limit = first(dataset, "PixelPaddingValue"), first(dataset, "PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(values.shape, np.bool_)
    low, high = sorted((int(value), int(value if limit is None else limit)))
    wide = values.astype(np.int64)
    return (wide >= low) & (wide <= high)


def _modality(dataset: Dataset, values: Values) -> Values:
    """Modality LUT Sequence, or Rescale Slope and Intercept (C.11.1.1)."""
    if dataset.get("ModalityLUTSequence"):
        return _look_up(values, dataset, "ModalityLUTSequence")[0]
    slope, intercept = first(dataset, "RescaleSlope"), first(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return values
    return values * float(slope) + float(intercept)


def _of_interest(dataset: Dataset, values: Values) -> Values | None:
    """The first VOI LUT, else the first window, as parts of full scale, 0 to 1; None where there is neither."""
    if dataset.get("VOILUTSequence"):
        entries, most = _look_up(values, dataset, "VOILUTSequence")
        return entries / most
    center, width = first(dataset, "WindowCenter"), first(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    return _window(values, float(center), float(width), str(first(dataset, "VOILUTFunction") or "LINEAR").strip())


def _window(values: Values, center: float, width: float, function: str) -> Values:
    """C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT), as parts of full scale."""
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
        if width == 0 and math.isfinite(center):
            return (values > center).astype(np.float64)
    if not (math.isfinite(center) and 0 < width < math.inf):
        raise Unreadable("undecodable", f"a window width that VOI LUT Function {function} does not allow")
    match function:
        case "LINEAR" | "LINEAR_EXACT":
            return np.clip((values - center) / width + 0.5, 0, 1)
        case "SIGMOID":
            return 0.5 + 0.5 * np.tanh(2 * (values - center) / width)  # = 1 / (1 + exp(-4 (x - c) / w))
    raise Unreadable("undecodable", "an unknown VOI LUT Function")


def _look_up(values: Values, dataset: Dataset, keyword: str) -> tuple[Values, int]:
    """Values through the first table of a LUT sequence (C.11.1.1.1, C.11.2.1.1), and the table's full scale.

    Own code since pydicom 3.0's wraps around where 8-bit entries are more than 256 and cannot read them packed.
    """
    item = dataset[keyword].value[0]
    entries, lowest, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 65536
    if lowest > 32767 and values.min() < 0:  # of unsigned pixels, it is written unsigned for a signed number
        lowest -= 65536
    if not 8 <= bits <= 16:
        raise Unreadable("undecodable", "a look-up table of neither 8 nor up to 16 bits")
    words = "<u2" if dataset.original_encoding[1] else ">u2"
    data = item.LUTData
    if not isinstance(data, bytes):
        data = np.atleast_1d(np.asarray(data, words)).tobytes()
    packed = len(data) < 2 * entries  # one byte an entry
    table = np.frombuffer(data, np.uint8 if packed else words, entries).astype(np.float64)
    places = np.clip(np.rint(values) - lowest, 0, entries - 1)
    bits = max(8, int(table.max()).bit_length())  # whatever the descriptor says: many name the bits of a word
    return table[places.astype(np.int64)], 2**bits - 1


def _full_range(values: Values, seen: NDArray[np.bool_]) -> Values:
    """From the lowest to the highest value seen, 0 to 1; all 0 where one value or none is."""
    low, high = (values[seen].min(), values[seen].max()) if seen.any() else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _seen(codes: Stored) -> NDArray[np.bool_]:
    """Which bit patterns the image has."""
    seen = np.zeros(256**codes.itemsize, np.bool_)
    for patterns in codes:
        seen[patterns] = True
    return seen


def _is_inverse(dataset: Dataset) -> bool:
    """Whether the lowest value is white: MONOCHROME1 (C.7.6.3.1.2), or Presentation LUT Shape INVERSE (C.11.6.1.2).

    One inversion, not two: a DX image has both or neither (C.8.11.3).
    """
    shape = str(first(dataset, "PresentationLUTShape") or "").strip()
    return dataset.PhotometricInterpretation.strip() == "MONOCHROME1" or shape == "INVERSE"
