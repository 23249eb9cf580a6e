"""JPEG: checks the structure of a file before a decoder reads it, and decodes it with every warning as an error.

libjpeg fills up what a damaged file lacks and says so in a warning that most programs drop, so a film without its lower
third would be scored. A decoder also passes over all pixels once for each scan, so a few bytes can cost minutes.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from chestai.imaging.errors import Unreadable, check_rest, check_size, find_rest

SIGNATURE = b"\xff\xd8"
MAX_SEGMENTS = 65_536
MAX_SCANS = 50  # of a progressive file; encoders make ten or so, and each costs a pass over all pixels
MULTI_PICTURE, MAX_PICTURES = b"MPF\0", 4  # the mark of a segment that lists further pictures, and their limit

START, END, SCAN = 0xD8, 0xD9, 0xDA  # markers
ARITHMETIC = 0xC9  # and above; a decoder takes missing data for zeros, as the standard says, without a warning
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG and DAC


@dataclass(frozen=True)
class Frame:
    """The frame header of a file (ITU-T T.81, B.2.2). bits: of a sample."""

    bits: int
    height: int
    width: int
    components: int

    @classmethod
    def parse(cls, segment: bytes) -> "Frame":
        """Parses a segment from its length field on. Raises `Unreadable` if it is cut off."""
        if len(segment) < 8:
            raise Unreadable("truncated", "the JPEG's frame header is cut off")
        return cls(segment[2], int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big"), segment[7])


def walk_jpeg(data: bytes, more: int = MAX_PICTURES) -> Frame:
    """Walks every segment as decoders do, which skip other bytes (ITU-T T.81, B.1.1), and returns the frame header.

    Args:
        more: Pictures that may follow in a file of several (CIPA DC-007, as phones write it): the first is the image.

    Raises:
        Unreadable: The file is cut off or arithmetic-coded, has not exactly one frame before its scans, has too many
            scans or segments, or other data behind its end.
    """
    at, scans, frame = len(SIGNATURE), 0, None
    places = _find_markers(data)
    for _ in range(MAX_SEGMENTS):
        index = bisect_left(places, at)
        if index == len(places):
            raise Unreadable("truncated" if scans else "not_an_image", "the JPEG has no end marker")
        at = places[index] + 2
        marker = data[at - 1]
        if marker == END:
            break
        if marker in FRAMES:
            if marker >= ARITHMETIC:
                raise Unreadable("unsupported_format", "arithmetic coding, which hides that data are missing")
            if frame is not None or scans:
                raise Unreadable("undecodable", "the JPEG has a second frame header")
            frame = Frame.parse(data[at : at + 8])
        scans += marker == SCAN
        if scans > MAX_SCANS:
            raise Unreadable("too_large", f"the JPEG has more than {MAX_SCANS} scans: a decompression bomb")
        if marker != START:
            at += int.from_bytes(data[at : at + 2], "big")
    else:
        raise Unreadable("too_large", f"the JPEG has more than {MAX_SEGMENTS} segments")
    rest = find_rest(data, at)
    if more and rest.startswith(SIGNATURE) and MULTI_PICTURE in data[:at]:
        walk_jpeg(rest, more - 1)
    else:
        check_rest(data, at)
    if frame is None or not frame.height or not frame.width:
        raise Unreadable("not_an_image", "the JPEG has no frame header, or one without a size")
    return frame


def _find_markers(data: bytes) -> list[int]:
    """The places of all that could be a segment's marker: 0xFF and neither a stuffed zero nor a restart after it."""
    values = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(values[:-1] == 0xFF)
    after = values[places + 1]
    found: list[int] = places[(after > 1) & (after < 0xFF) & ((after < 0xD0) | (after > 0xD7))].tolist()
    return found


def check_jpeg(data: bytes) -> Frame:
    """Checks a file for `decode_jpeg` and returns its frame header.

    Raises:
        Unreadable: As `walk_jpeg`, or an impossible size, or other than 1 or 3 components of 8 bits.
    """
    frame = walk_jpeg(data)
    if frame.bits != 8 or frame.components not in (1, 3):
        detail = f"a JPEG of {frame.components} components of {frame.bits} bits; 1 or 3 of 8 bits are supported"
        raise Unreadable("unsupported_format", detail)
    check_size(frame.height, frame.width)
    if 8 * len(data) < -(-frame.height // 8) * -(-frame.width // 8):
        raise Unreadable("truncated", "the JPEG has less than a bit for each block of its size")
    return frame


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decodes a file to grey levels (H, W), colour by luma.

    Raises:
        Unreadable: As `check_jpeg`, or the decoder reports anything, a warning included.
    """
    frame = check_jpeg(data)
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY", fastdct=False, fastupsample=False, strict=True)
    except ValueError as error:
        reason = "truncated" if "premature end" in str(error) else "undecodable"
        raise Unreadable(reason, "the JPEG data are damaged") from error
    if pixels.shape != (frame.height, frame.width, 1):
        raise Unreadable("undecodable", "the JPEG has another size than its header says")
    grey: NDArray[np.uint8] = pixels[..., 0]
    return grey
