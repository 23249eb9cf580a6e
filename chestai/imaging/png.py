"""PNG: checks the structure of a file, hands the decoder only what it needs, and decodes it.

Decoders obey a file: they inflate its comments and read on after the last row. A few bytes can cost gigabytes, so
everything that no image needs is left out or rejected here by structure alone. OpenCV decodes; the usual 8-bit grey
file without a fault goes a way of its own to the same pixels, four times as fast (`chestai.imaging.fast_png`).
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from chestai.imaging.errors import Unreadable, check_rest, check_size
from chestai.imaging.fast_png.decode import decode_regular
from chestai.imaging.png_depth import find_full_scale, find_significant_bits

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 65_536  # 100 megapixels in chunks of 8 KiB are 25,000
MAX_TEXT = 2**24  # bytes of texts and colour profile, inflated
UNCHECKED = 2**20  # bytes of packed pixels; they inflate to 1 GiB at most, which takes two seconds

NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # chunks that a decoder needs
HEADER = struct.Struct(">IIBBBBB")  # width, height, bit depth, colour type, compression, filter, interlacing
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
GREY_8 = (8, 0, 0, 0, 0)  # the header of an 8-bit grey file without interlacing, after its size


@dataclass(frozen=True)
class Parts:
    """A file without the chunks that carry no pixels.

    Attributes:
        header: The values of `HEADER`.
        kept: The signature and the chunks of the kinds `NEEDED`, whole.
        pixels: The bodies of the chunks with pixels.
        plain: Whether nothing but pixels lies between header and end.
    """

    header: tuple[int, ...]
    kept: list[memoryview]
    pixels: list[memoryview]
    plain: bool

    def join(self) -> bytes:
        """Returns the file that a decoder gets. Raises `Unreadable` if it inflates to more than an image needs."""
        if sum(map(len, self.pixels)) > UNCHECKED:
            _inflated(self.pixels, _max_inflated(self.header))
        return b"".join(self.kept)


def clean_png(data: bytes) -> bytes:
    """Returns the file without the chunks that carry no pixels.

    Raises:
        Unreadable: As `split_png`, or the file inflates to more than an image needs.
    """
    return split_png(data).join()


def split_png(data: bytes) -> Parts:
    """Walks every chunk and checks its CRC and its place (PNG specification, 5.3 and 5.6).

    Raises:
        Unreadable: The file is cut off, damaged, animated, of an impossible size, or followed by other data.
    """
    view, at = memoryview(data), len(SIGNATURE)
    kept, text = [view[:at]], MAX_TEXT
    last: dict[bytes, int] = {}
    pixels: list[memoryview] = []
    for index in range(MAX_CHUNKS):
        length, kind = _number(data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or isal_zlib.crc32(view[at + 4 : end - 4]) != _number(data, end - 4):
            reason = "truncated" if pixels or kind == b"IDAT" else "not_an_image"
            raise Unreadable(reason, "the PNG is cut or damaged")
        body = view[at + 8 : end - 4]
        _check_place(index, kind, body, last)
        last[kind] = index
        if kind in NEEDED:
            kept.append(view[at:end])
        if kind == b"IDAT":
            pixels.append(body)
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            text -= _inflated([_packed(kind, bytes(body))], text)
        elif kind == b"acTL" and _number(data, at + 8) > 1:
            raise Unreadable("multi_frame", "the PNG is animated")
        at = end
        if kind == b"IEND":
            break
    else:
        raise Unreadable("too_large", f"the PNG has more than {MAX_CHUNKS} chunks")
    check_rest(data, at)
    return Parts(HEADER.unpack_from(kept[1], 8), kept, pixels, plain=not last.keys() & {b"PLTE", b"tRNS"})


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """Decodes a file to grey levels (H, W): colour by luma, 16 bits by those that are used, alpha dropped.

    Raises:
        Unreadable: As `clean_png`, damaged pixels, or 16-bit values of an unknown depth.
    """
    parts = split_png(data)
    width, height, depth, *_ = parts.header
    if parts.plain and parts.header[2:] == GREY_8:
        grey = decode_regular(width, height, parts.pixels)
        if grey is not None:
            return grey
    packed = np.frombuffer(parts.join(), np.uint8)
    if depth == 16 and (narrow := _decode_narrow(packed, find_significant_bits(data))) is not None:
        return narrow
    decoded = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE)
    if decoded is None or decoded.shape != (height, width):
        raise Unreadable("undecodable", "the PNG data are damaged")
    return decoded.astype(np.uint8, copy=False)


def _check_place(index: int, kind: bytes, body: memoryview, last: dict[bytes, int]) -> None:
    """Rejects a chunk that is not where decoders look for it.

    A decoder would take the size from a later or longer header, and would stop at pixels that are not in one stretch.

    Args:
        index: Of the chunk in the file.
        last: The index of the last chunk of each kind so far.
    """
    if (kind == b"IHDR") != (index == 0):
        raise Unreadable("not_an_image", "the PNG does not begin with its one header")
    if kind == b"IHDR":
        if len(body) != HEADER.size:
            raise Unreadable("not_an_image", f"the PNG's header has {len(body)} bytes, not {HEADER.size}")
        width, height, depth, colour, *methods = HEADER.unpack(body)
        if not (width and height and depth in DEPTHS.get(colour, ()) and methods in ([0, 0, 0], [0, 0, 1])):
            raise Unreadable("not_an_image", "the PNG's header has impossible values")
        check_size(height, width)
    elif kind in (b"PLTE", b"tRNS") and kind in last:
        raise Unreadable("undecodable", f"the PNG has a second {kind.decode()} chunk")
    elif kind == b"IDAT" and last.get(kind, index - 1) != index - 1:
        raise Unreadable("undecodable", "the PNG's pixels are not in one stretch")
    elif kind == b"IEND" and b"IDAT" not in last:
        raise Unreadable("undecodable", "the PNG has no pixels")


def _decode_narrow(packed: NDArray[np.uint8], significant: int | None) -> NDArray[np.uint8] | None:
    """Decodes a 16-bit image whose values lie in fewer bits; None for others, whose high byte is the grey level."""
    values = cv2.imdecode(packed, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
    if values is None or values.dtype != np.uint16:
        return None
    white = find_full_scale(values.astype(np.uint16, copy=False), significant)
    return None if white == 65535 else np.rint(np.minimum(values, white) * (255 / white)).astype(np.uint8)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _packed(kind: bytes, body: bytes) -> bytes:
    """The deflated part of a chunk; empty if there is none."""
    _, _, rest = body.partition(b"\0")
    if kind == b"iTXt":  # flag, method, language, translated keyword
        return rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    return rest[1:]  # method


def _inflated(packed: Iterable[bytes | memoryview], limit: int) -> int:
    """The number of inflated bytes. Raises `Unreadable` as soon as there are more than `limit`."""
    inflater, size = zlib.decompressobj(), 0
    for piece in packed:
        while piece:
            try:
                size += len(inflater.decompress(piece, 2**20))
            except zlib.error:
                return size  # the decoder will report the damage
            if size > limit:
                raise Unreadable("too_large", "the PNG inflates to more than an image needs: a decompression bomb")
            piece = inflater.unconsumed_tail
    return size


def _max_inflated(header: tuple[int, ...]) -> int:
    """Twice the bytes of all rows according to the header: interlacing adds some to small images."""
    width, height, depth, colour, *_ = header
    return 2 * height * (2 + width * depth * CHANNELS[colour] // 8)
