"""Broken image files: what is accepted is what a decoder finds in the very same bytes, and the rest has a reason."""

import io
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path
from random import Random

import cv2
import gdcm
import numpy as np
from pydicom import dcmread, uid

from chestai.imaging import preprocess
from chestai.imaging.errors import MIN_SIDE, REASONS, Unreadable
from tests.serve.support import forgery
from tests.support.dicom import EIGHT, SIGNED, TWELVE, a_file, compressed, header, written
from tests.support.pngs import make_chunk

FILM = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
SYNTAXES = ("JPEGBaselineProcess1", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless")
KEYWORDS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)
SCALES = ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")
NUMBERS = (0, 1, -1, 7, 8, 16, 255, 4095, 32768, 65535)


def fuzz_png(random: Random) -> None:
    """Chunks that are changed, moved, repeated or left out, with valid checksums, and changed bytes."""
    data = random.choice(_pngs())
    if random.random() < 0.8:
        chunks = _split_png(data)
        for _ in range(random.randint(1, 3)):
            _change_chunks(random, chunks)
        data = forgery.PNG + b"".join(make_chunk(kind, body) for kind, body in chunks)
    if random.random() < 0.4:
        data = change_bytes(random, data)
    _check_picture(data, cv2.IMREAD_GRAYSCALE)


def fuzz_jpeg(random: Random) -> None:
    """Segments that are changed, moved, repeated or left out, and changed bytes."""
    data = random.choice(_jpegs())
    head, body = data[: data.index(b"\xff\xda")], data[data.index(b"\xff\xda") :]
    segments = _split_jpeg(head)
    for _ in range(random.randint(0, 3)):
        _change_segments(random, segments)
    data = data[:2] + b"".join(segments) + body
    if random.random() < 0.6:
        data = change_bytes(random, data)
    _check_picture(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)


def fuzz_dicom(random: Random) -> None:
    """Elements of a header with other numbers, and changed bytes."""
    data = random.choice(_dicoms())
    if random.random() < 0.5:
        dataset = dcmread(io.BytesIO(data))
        for keyword in random.sample(KEYWORDS, random.randint(1, 2)):
            setattr(dataset, keyword, random.choice([value for value in NUMBERS if value >= 0]))
        for keyword in random.sample(SCALES, random.randint(0, 2)):
            setattr(dataset, keyword, random.choice((*NUMBERS, 1e300, 0.001)))
        try:
            data = written(dataset)
        except Exception:  # pydicom refuses to write it
            return
    if random.random() < 0.6:
        data = data[:132] + change_bytes(random, data[132:])
    try:
        grey = preprocess.decode(data)
    except Unreadable as error:
        assert error.reason in REASONS, error
    else:
        assert grey.dtype == np.uint8 and grey.ndim == 2 and min(grey.shape) >= MIN_SIDE


def change_bytes(random: Random, data: bytes) -> bytes:
    """The bytes cut off, or some of them changed, left out or repeated."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(changed) + 1), random.choice((1, 1, 1, 2, 4, 16))
        match random.randrange(5):
            case 0:
                changed[at : at + length] = random.randbytes(length)
            case 1:
                changed[at : at + length] = bytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case _:
                del changed[at + len(changed) // 2 :]
    return bytes(changed)


def _check_picture(data: bytes, flags: int) -> None:
    try:
        grey = preprocess.decode(data)
    except Unreadable as error:
        assert error.reason in REASONS, error
    else:
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        assert expected is not None and np.array_equal(grey, expected)


def _split_png(data: bytes) -> list[tuple[bytes, bytes]]:
    at, chunks = len(forgery.PNG), []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _change_chunks(random: Random, chunks: list[tuple[bytes, bytes]]) -> None:
    at = random.randrange(len(chunks))
    kind, body = chunks[at]
    match random.randrange(5):
        case 0:
            chunks.insert(random.randrange(len(chunks) + 1), chunks.pop(at))
        case 1:
            chunks.insert(random.randrange(len(chunks) + 1), chunks[at])
        case 2 if len(chunks) > 1:
            del chunks[at]
        case 3:
            sides = struct.pack(">II", random.choice((0, 32, 48, 64, 9999)), random.choice((0, 32, 48, 64, 9999)))
            rest = bytes(random.choice((0, 0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(random.choice((4, 5, 5, 5, 6))))
            chunks.insert(random.randrange(len(chunks) + 1), (b"IHDR", sides + rest))
        case _:
            chunks[at] = (
                random.choice((kind, b"tEXt", b"PLTE", b"tRNS", b"viRu", b"acTL")),
                body[: random.randrange(40)],
            )


def _split_jpeg(head: bytes) -> list[bytes]:
    at, segments = 2, []
    while at < len(head):
        end = at + 2 + int.from_bytes(head[at + 2 : at + 4], "big")
        segments.append(head[at:end])
        at = end
    return segments


def _change_segments(random: Random, segments: list[bytes]) -> None:
    if not segments:
        return
    at = random.randrange(len(segments))
    match random.randrange(4):
        case 0:
            segments.insert(random.randrange(len(segments) + 1), segments.pop(at))
        case 1:
            segments.insert(random.randrange(len(segments) + 1), segments[at])
        case 2:
            del segments[at]
        case _:
            body = random.randbytes(random.randrange(12))
            segments[at] = bytes((0xFF, random.randrange(0xC0, 0xFF))) + struct.pack(">H", len(body) + 2) + body


@cache
def _pngs() -> list[bytes]:
    text = make_chunk(b"zTXt", b"name\0\0" + zlib.compress(b"text"))
    images = (FILM, np.dstack([FILM] * 3), np.dstack([FILM] * 4), FILM.astype(np.uint16) * 257)
    files = [forgery.make_interlaced_png(FILM), forgery.make_png(FILM, before=text, after=text)]
    return [*map(forgery.encode_image, images), *files]


@cache
def _jpegs() -> list[bytes]:
    smooth = np.asarray(cv2.GaussianBlur(FILM, (0, 0), 2), np.uint8)
    colour = np.asarray(cv2.applyColorMap(smooth, cv2.COLORMAP_BONE), np.uint8)
    options: list[list[int]] = [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3]]
    files = [cv2.imencode(".jpg", image, flags)[1].tobytes() for image in (smooth, colour) for flags in options]
    return [*files, forgery.make_rotated_jpeg(smooth)]


@cache
def _dicoms() -> list[bytes]:
    plain = [a_file(EIGHT, 8), a_file(TWELVE, 12, WindowCenter=1800, WindowWidth=3000), a_file(SIGNED, 13)]
    deflated = a_file(syntax=uid.DeflatedExplicitVRLittleEndian)
    run_length = header(TWELVE, 12)
    run_length.compress(uid.RLELossless)
    with tempfile.TemporaryDirectory() as folder:
        packed = [
            compressed(Path(folder), a_file(EIGHT, 8), getattr(gdcm.TransferSyntax, syntax)) for syntax in SYNTAXES
        ]
    return [*plain, a_file(syntax=uid.ImplicitVRLittleEndian), deflated, written(run_length), *packed]
