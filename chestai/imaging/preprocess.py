"""The one preprocessing: file bytes -> 8-bit greyscale -> square training size.

ETL, training, scoring and serving call these functions and nothing else, so that the same bytes always give the
same numbers. Normalisation to zero mean happens inside the network (`chestai.model.classifier`), on the accelerator.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chestai.imaging import jpeg, png, sandbox
from chestai.imaging.dicom.header import is_dicom
from chestai.imaging.errors import MAX_PIXELS, Unreadable, check_size

Grey = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG")
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow warns below ours otherwise
CHANNELS = {"1": 1, "L": 1, "I;16": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4}


@dataclass(frozen=True)
class Header:
    """The header of an image file; sizes in pixels."""

    format: str
    height: int
    width: int
    channels: int


def read_header(data: bytes) -> Header:
    """Parses and checks the header of a PNG, JPEG or DICOM file.

    Raises:
        Unreadable: Empty, not an image, of another format, of an impossible size, or a DICOM file whose header says
            that it is no frontal chest radiograph.
    """
    if is_dicom(data):
        facts = sandbox.read_facts(data)
        return Header("DICOM", facts.height, facts.width, 1)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise Unreadable("multi_frame", "the file holds more than one picture")
            width, height = image.size
            header = Header(
                "JPEG" if image.format == "MPO" else str(image.format), height, width, CHANNELS.get(image.mode, 0)
            )
            mode = image.mode
    except Image.DecompressionBombError as error:
        raise Unreadable("too_large", f"more than {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise _not_an_image(data) from error
    if header.channels == 0:
        raise Unreadable("unsupported_format", f"colour mode {mode}")
    check_size(height, width)
    return header


def decode(data: bytes) -> Grey:
    """Decode a PNG, JPEG or DICOM file to `uint8` greyscale of shape (H, W): 0 is black.

    Colour is averaged by luma and alpha dropped; the grey scale of a DICOM file is that of `imaging.dicom.grayscale`.

    Raises:
        Unreadable: for every input that is not a whole, valid image.
    """
    if is_dicom(data):
        return sandbox.decode(data)
    return decode_picture(data)


def decode_picture(data: bytes) -> Grey:
    """Decode a PNG or JPEG file as `decode` does."""
    if data.startswith(png.SIGNATURE):
        return png.decode_png(data)
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.decode_jpeg(data)
    raise _not_an_image(data)


def _not_an_image(data: bytes) -> Unreadable:
    if not data:
        return Unreadable("empty_file", "the file has 0 bytes")
    return Unreadable("not_an_image", f"no PNG, JPEG or DICOM header in {len(data)} bytes")


def resize(grey: Grey, size: int) -> Grey:
    """Fit an image into a black (size, size) square: aspect ratio kept, centred, antialiased.

    Halving by 2 x 2 means while the image is at least four times too large, then area interpolation, costs a third of
    one area step from 1024 pixels.
    """
    top, left, height, width = letterbox(grey.shape[0], grey.shape[1], size)
    while grey.shape[0] >= 4 * height and grey.shape[1] >= 4 * width:
        grey = _halve(grey)
    shrinks = grey.shape[0] >= height
    fit = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if (height, width) == (size, size):
        return fit.astype(np.uint8, copy=False)
    square = np.zeros((size, size), np.uint8)
    square[top : top + height, left : left + width] = fit
    return square


def _halve(grey: Grey) -> Grey:
    half = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return half.astype(np.uint8, copy=False)


def letterbox(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Where `resize` puts an image of (height, width) in its square: top, left, height, width in pixels."""
    scale = size / max(height, width)
    fit_height, fit_width = max(1, round(height * scale)), max(1, round(width * scale))
    return (size - fit_height) // 2, (size - fit_width) // 2, fit_height, fit_width


def load(data: bytes, size: int) -> Grey:
    """File bytes -> `uint8` (size, size), as every model input is made. Raises `Unreadable`."""
    return resize(decode(data), size)
