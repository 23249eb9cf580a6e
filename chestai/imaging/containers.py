"""Checks the structure of PNG and JPEG files before a decoder reads them.

Decoders obey a file: they inflate its comments, pass over all pixels for each of its scans, and read on after the last
row. A few bytes can cost gigabytes or hours, so everything that no image needs is rejected here by structure alone.
"""

import re
import struct
import zlib
from collections.abc import Iterable

from chestai.imaging.errors import Unreadable

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
MAX_PARTS = 65_536  # chunks or segments; 100 megapixels in chunks of 8 KiB are 25,000
MAX_SCANS = 50  # of a progressive JPEG; encoders make ten or so, and each costs a pass over all pixels
MAX_TEXT = 2**24  # bytes of a PNG's texts and colour profile, inflated
UNCHECKED = 2**20  # bytes of packed pixels; they inflate to 1 GiB at most, which takes two seconds
PADDING = b"\0\r\n "  # bytes that may follow the end

PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # chunks that a decoder needs
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")  # of a segment: neither a stuffed zero nor a restart
START_OF_SCAN, END = b"\xda", b"\xd9"


def check_container(data: bytes) -> bytes:
    """Returns the file for the decoder: a PNG without the chunks that carry no pixels, anything else unchanged.

    Raises:
        Unreadable: A PNG or JPEG that is truncated, damaged, animated, followed by other data, or inflates to more than
            an image needs.
    """
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(JPEG):
        _check_jpeg(data)
    return data


def _png(data: bytes) -> bytes:
    """Walks every chunk and checks its CRC (PNG specification, 5.3)."""
    view, at = memoryview(data), len(PNG)
    kept, text = [view[:at]], MAX_TEXT
    pixels: list[memoryview] = []
    for _ in range(MAX_PARTS):
        length, kind = _number(data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or zlib.crc32(view[at + 4 : end - 4]) != _number(data, end - 4):
            reason = "truncated" if pixels or kind == b"IDAT" else "not_an_image"
            raise Unreadable(reason, "the PNG is cut or damaged")
        body = view[at + 8 : end - 4]
        if kind in PIXELS:
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
        raise Unreadable("too_large", f"the PNG has more than {MAX_PARTS} chunks")
    _check_rest(data, at)
    if sum(map(len, pixels)) > UNCHECKED:
        _inflated(pixels, _max_inflated(data))
    return b"".join(kept)


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


def _max_inflated(data: bytes) -> int:
    """Twice the bytes of all rows according to the header, IHDR: interlacing adds some to small images."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, len(PNG) + 8)
    return 2 * height * (2 + width * depth * CHANNELS.get(colour, 4) // 8)


def _check_jpeg(data: bytes) -> None:
    """Walks every segment as decoders do, which skip other bytes (ITU-T T.81, B.1.1)."""
    at, scans = len(JPEG), 0
    for _ in range(MAX_PARTS):
        match = MARKER.search(data, at)
        if match is None:
            raise Unreadable("truncated" if scans else "not_an_image", "the JPEG has no end marker")
        at, marker = match.end(), match[1]
        if marker == END:
            break
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise Unreadable("too_large", f"the JPEG has more than {MAX_SCANS} scans: a decompression bomb")
        if marker != JPEG[1:]:
            at += int.from_bytes(data[at : at + 2], "big")
    else:
        raise Unreadable("too_large", f"the JPEG has more than {MAX_PARTS} segments")
    _check_rest(data, at)


def _check_rest(data: bytes, end: int) -> None:
    """Rejects data after the image: a polyglot file, or a second picture."""
    rest = data[end:].lstrip(PADDING)
    if rest.startswith((PNG, JPEG)):
        raise Unreadable("multi_frame", "a second picture follows the image's end")
    if rest:
        raise Unreadable("undecodable", f"{len(rest)} bytes of something else follow the image's end")
