"""Compressed pixel data of DICOM files: checks a frame before a decoder reads it, and decodes JPEG with 8 bits.

A frame has a size of its own, which decoders obey, and JPEG in it has all the faults that JPEG has elsewhere.
"""

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame

from chestai.imaging.dicom.syntaxes import DCT, JPEG_2000, JPEG_LS, RLE
from chestai.imaging.errors import Unreadable
from chestai.imaging.jpeg import MAX_SCANS, Frame, decode_jpeg, walk_jpeg

END = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
JPEG_LS_FRAME, JPEG_LS_SCAN = b"\xff\xf7", b"\xff\xda"  # ITU-T T.87, C.1.1; its data have neither
JPEG_2000_SIZE = b"\xff\x4f\xff\x51"  # ITU-T T.800, A.5.1: start of codestream, and the image's size
MAX_TILES = 65_535


def check_frame(dataset: Dataset) -> None:
    """Rejects a frame that is cut off, of another size than its header says, or made to keep a decoder busy.

    Raises:
        Unreadable: See above.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == RLE:
        expected = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
        if len(dataset.PixelData or b"") > 2 * expected + 1024:  # the worst coding is a run of one for each byte
            raise Unreadable("undecodable", "more run-length data than the image can have")
        return
    data = _frame(dataset)
    if END not in data.rstrip(b"\0")[-64:]:
        raise Unreadable("truncated", "the compressed pixel data have no end marker")
    frame = _parse(syntax, data)
    if (frame.height, frame.width, frame.components) != (dataset.Rows, dataset.Columns, 1):
        detail = f"compressed pixel data of {frame.width} x {frame.height} pixels and {frame.components} components"
        raise Unreadable("undecodable", f"{detail}, not {dataset.Columns} x {dataset.Rows} and 1")
    if syntax in DCT and frame.bits != 8:
        raise Unreadable("unsupported_format", f"no decoder for JPEG Extended of {frame.bits} bits")


def decode_frame(dataset: Dataset) -> NDArray[np.uint8] | NDArray[np.int8] | None:
    """The stored values (H, W) of a frame of JPEG Baseline or Extended; None for other transfer syntaxes.

    Raises:
        Unreadable: The decoder reports anything, a warning included.
    """
    if dataset.file_meta.TransferSyntaxUID not in DCT:
        return None
    values = decode_jpeg(_frame(dataset))
    return values.view(np.int8) if dataset.PixelRepresentation else values


def _frame(dataset: Dataset) -> bytes:
    """The one frame, its fragments joined."""
    return get_frame(dataset.PixelData or b"", 0, number_of_frames=1)


def _parse(syntax: str, data: bytes) -> Frame:
    """The size of a frame. Raises `Unreadable` if it has none or too many scans or tiles."""
    if syntax in JPEG_2000:
        return _parse_jpeg_2000(data)
    if syntax not in JPEG_LS:
        return walk_jpeg(data)
    at = data.find(JPEG_LS_FRAME)
    if at < 0:
        raise Unreadable("undecodable", "the compressed pixel data have no frame header")
    if data.count(JPEG_LS_SCAN) > MAX_SCANS:
        raise Unreadable("too_large", f"the compressed pixel data have more than {MAX_SCANS} scans")
    return Frame.parse(data[at + 2 : at + 10])


def _parse_jpeg_2000(data: bytes) -> Frame:
    at = data.find(JPEG_2000_SIZE) + len(JPEG_2000_SIZE)
    segment = data[at : at + 40]
    if at < len(JPEG_2000_SIZE) or len(segment) < 40:
        raise Unreadable("undecodable", "the compressed pixel data have no image size")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = (
        int.from_bytes(segment[start : start + 4], "big") for start in range(4, 36, 4)
    )
    if not tile_width or not tile_height:
        raise Unreadable("undecodable", "the compressed pixel data have tiles of no size")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > MAX_TILES:
        raise Unreadable("too_large", f"the compressed pixel data have more than {MAX_TILES} tiles")
    return Frame((segment[38] & 0x7F) + 1, bottom - top, right - left, int.from_bytes(segment[36:38], "big"))
