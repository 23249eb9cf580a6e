"""Makes image files by hand that no encoder would write."""

import gzip
import io
import pickle
import re
import sqlite3
import struct
import zipfile
import zlib
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from chestai.phantom import draw, plan
from tests.support.dicom import a_file
from tests.support.pngs import make_chunk

Grey = NDArray[np.uint8]

PNG = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
SIDE = 96  # pixels of a phantom


@cache
def make_films(count: int = 100, seed: int = 3) -> tuple[Grey, ...]:
    """Draws phantoms, each uint8 (SIDE, SIDE)."""
    images = [image for image in plan(count + 30, SIDE, seed) if image.form == "grey"]
    return tuple(draw(image)[0] for image in images[:count])


def encode_image(image: NDArray[np.integer], suffix: str = ".png") -> bytes:
    ok, data = cv2.imencode(suffix, image)
    assert ok
    return data.tobytes()


def save_image(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make_ihdr(width: int, height: int, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    return make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def encode_rows(image: Grey) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in image)


def make_png(
    film: Grey, before: bytes = b"", after: bytes = b"", head: bytes = b"", pixels: bytes | None = None
) -> bytes:
    """Makes a grey PNG, optionally with chunks around its pixels, another header or other compressed pixels."""
    height, width = film.shape
    packed = zlib.compress(encode_rows(film)) if pixels is None else pixels
    return PNG + (head or make_ihdr(width, height)) + before + make_chunk(b"IDAT", packed) + after + make_chunk(b"IEND")


def make_interlaced_png(film: Grey) -> bytes:
    height, width = film.shape
    passes = b"".join(encode_rows(film[top::down, left::right]) for top, left, down, right in ADAM7)
    return make_png(film, head=make_ihdr(width, height, interlaced=1), pixels=zlib.compress(passes))


def make_animated_png(film: Grey) -> bytes:
    frames = [Image.fromarray(film), Image.fromarray(film[::-1].copy())]
    return save_image(frames[0], "PNG", save_all=True, append_images=frames[1:])


def make_zlib_bomb(megabytes: int) -> bytes:
    """Makes a zlib stream of one letter, a compressed megabyte repeated. (A text of zeros would end at the first.)"""
    deflate, megabyte, check = zlib.compressobj(9), b"A" * 2**20, 1
    start = deflate.flush(zlib.Z_FULL_FLUSH)
    piece = deflate.compress(megabyte) + deflate.flush(zlib.Z_FULL_FLUSH)
    for _ in range(megabytes):
        check = zlib.adler32(megabyte, check)
    return start + piece * megabytes + deflate.flush()[:-4] + struct.pack(">I", check)


def _data_set(dicom: bytes) -> int:
    """Returns where the data set starts: after the file meta information, which begins with its length (PS3.10 7.1)."""
    return 144 + int(struct.unpack_from("<I", dicom, 140)[0])


def make_deflated_dicom_bomb(deflated: bytes) -> bytes:
    """Replaces the data set of a deflated DICOM file by 300 MB of one letter."""
    return deflated[: _data_set(deflated)] + make_zlib_bomb(300)[2:-4]


def make_nested_dicom(dicom: bytes, depth: int) -> bytes:
    """Inserts nested look-up tables of undefined length into a DICOM file (PS3.5 7.5)."""
    start = _data_set(dicom)
    endless = b"\xff\xff\xff\xff"
    sequence = b"\x28\0\0\x30SQ\0\0" + endless + b"\xfe\xff\0\xe0" + endless
    return dicom[:start] + sequence * depth + dicom[start:]


def make_jpeg_2000_dicom(image: NDArray[np.uint16], side: int) -> bytes:
    """Makes a DICOM file whose JPEG 2000 header declares more pixels than its DICOM header."""
    packed = encode_image(np.zeros((side, side), np.uint16), ".jp2")
    return a_file(image, 10, PixelData=encapsulate([packed[packed.index(b"\xff\x4f\xff\x51") :]]), syntax=uid.JPEG2000)


def make_zip(size: int = 10) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../etc/passwd", bytes(size))
    return file.getvalue()


def make_gzip(size: int) -> bytes:
    return gzip.compress(bytes(size))


def make_sqlite() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table t (a)")
        return connection.serialize()


def make_npy(film: Grey) -> bytes:
    file = io.BytesIO()
    np.save(file, film)
    return file.getvalue()


def make_pickle() -> bytes:
    return pickle.dumps({"os": "system"})


def make_jpeg(film: Grey, **options: object) -> bytes:
    return save_image(Image.fromarray(film), "JPEG", quality=95, **options)


def change_jpeg_size(data: bytes, height: int, width: int) -> bytes:
    """Changes the size in the frame header of a JPEG."""
    frame = re.search(rb"\xff[\xc0\xc2]..\x08", data, re.DOTALL)
    assert frame is not None
    at = frame.end()
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def make_scan_bomb(side: int, scans: int) -> bytes:
    """Makes a progressive JPEG that repeats its last scan, which changes nothing."""
    data = save_image(Image.new("L", (side, side), 77), "JPEG", progressive=True, optimize=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def make_rotated_jpeg(film: Grey) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees, which the decoder ignores
    return make_jpeg(film, exif=exif)


def make_two_pictures(film: Grey) -> bytes:
    return save_image(Image.fromarray(film), "MPO", save_all=True, append_images=[Image.fromarray(film)])


def make_comment_segment(text: bytes) -> bytes:
    """Makes a JPEG comment segment."""
    return b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text
