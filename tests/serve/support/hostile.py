"""Hostile uploads: broken, with lying headers, enormous when decoded, of two formats at once, or no radiograph."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from chestai.imaging import preprocess
from tests.serve.support import forgery
from tests.serve.support.forgery import PNG, encode_image, make_films, make_ihdr, make_jpeg, make_png, save_image
from tests.serve.support.local import make_gated_bundle
from tests.support.dicom import a_file
from tests.support.foreign_images import KINDS
from tests.support.models import SIZE
from tests.support.pngs import make_chunk

SCORED = "scored"
FILM = make_films()[0]
HEIGHT, WIDTH = FILM.shape
WHOLE, PHOTO = encode_image(FILM), make_jpeg(FILM)
HTML = b"<html><script>alert(1)</script></html>"
TEN_BITS = FILM.astype(np.uint16) * 4


class HostileUpload(NamedTuple):
    """A file as a client sends it. expected: the error code of the response, or `SCORED`."""

    data: Callable[[], bytes]
    content_type: str
    file_name: str
    expected: str


def _uploads(
    content_type: str, suffix: str, files: dict[str, tuple[Callable[[], bytes], str]]
) -> dict[str, HostileUpload]:
    return {
        name: HostileUpload(data, content_type, f"{name.replace(' ', '_')}{suffix}", code)
        for name, (data, code) in files.items()
    }


def _dicom(**elements: object) -> Callable[[], bytes]:
    return lambda: a_file(TEN_BITS, 10, **elements)


def _preamble(data: bytes, start: bytes) -> bytes:
    return start.ljust(128, b"\0") + data[128:]


def _picture(kind: str) -> Callable[[], bytes]:
    return lambda: encode_image(KINDS[kind](FILM, np.random.default_rng(7)))


def _text_bomb(kind: bytes, between: bytes = b"\0") -> bytes:
    return make_chunk(kind, b"name\0" + between + forgery.make_zlib_bomb(100))


PNGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "16 bit": (lambda: encode_image(FILM.astype(np.uint16) * 257), SCORED),
    "rgb": (lambda: encode_image(np.dstack([FILM] * 3)), SCORED),
    "rgba": (lambda: encode_image(np.dstack([FILM] * 3 + [np.full_like(FILM, 255)])), SCORED),
    "grey and alpha": (lambda: save_image(Image.fromarray(FILM).convert("LA"), "PNG"), SCORED),
    "palette": (lambda: save_image(Image.fromarray(FILM).convert("P"), "PNG"), SCORED),
    "interlaced": (lambda: forgery.make_interlaced_png(FILM), SCORED),
    "page in a comment": (lambda: make_png(FILM, before=make_chunk(b"tEXt", b"a\0" + HTML)), SCORED),
    "archive in a private chunk": (lambda: make_png(FILM, before=make_chunk(b"viRu", forgery.make_zip())), SCORED),
    "padded": (lambda: WHOLE + bytes(500), SCORED),
    "one bit": (lambda: save_image(Image.fromarray(FILM).convert("1"), "PNG"), SCORED),
    "signature alone": (lambda: PNG, "not_an_image"),
    "cut in its header": (lambda: WHOLE[:20], "not_an_image"),
    "cut after its header": (lambda: WHOLE[:33], "not_an_image"),
    "cut early": (lambda: WHOLE[:80], "truncated"),
    "cut in the middle": (lambda: WHOLE[: len(WHOLE) // 2], "truncated"),
    "cut before its end": (lambda: WHOLE[:-12], "truncated"),
    "cut by a byte": (lambda: WHOLE[:-1], "truncated"),
    "bad crc of pixels": (lambda: WHOLE[:90] + bytes([WHOLE[90] ^ 1]) + WHOLE[91:], "truncated"),
    "bad crc of the header": (lambda: WHOLE[:29] + b"\0\0\0\0" + WHOLE[33:], "not_an_image"),
    "no pixels": (lambda: PNG + make_ihdr(WIDTH, HEIGHT) + make_chunk(b"IEND"), "undecodable"),
    "pixels that are none": (lambda: make_png(FILM, pixels=b"x" * 900), "undecodable"),
    "no header": (lambda: PNG + make_chunk(b"IDAT", zlib.compress(b"\0" * 99)) + make_chunk(b"IEND"), "not_an_image"),
    "no width": (lambda: make_png(FILM, head=make_ihdr(0, HEIGHT)), "not_an_image"),
    "impossible depth": (lambda: make_png(FILM, head=make_ihdr(WIDTH, HEIGHT, depth=7)), "not_an_image"),
    "impossible colour": (lambda: make_png(FILM, head=make_ihdr(WIDTH, HEIGHT, colour=5)), "not_an_image"),
    "says it is enormous": (lambda: make_png(FILM, head=make_ihdr(2**31 - 1, 2**31 - 1)), "too_large"),
    "says it is large": (lambda: make_png(FILM, head=make_ihdr(9000, 9000)), "undecodable"),
    "says it is small": (lambda: make_png(FILM, head=make_ihdr(WIDTH - 32, HEIGHT)), "undecodable"),
    "tiny": (lambda: encode_image(FILM[:16, :16]), "too_small"),
    "a pixel": (lambda: encode_image(FILM[:1, :1]), "too_small"),
    "a line": (lambda: encode_image(np.zeros((1, 20_000), np.uint8)), "too_small"),
    "huge and black": (lambda: save_image(Image.new("1", (20_000, 10_000)), "PNG"), "too_large"),
    "as large as may be": (lambda: save_image(Image.new("1", (10_000, 10_000)), "PNG"), "out_of_distribution"),
    "text bomb": (lambda: make_png(FILM, before=_text_bomb(b"zTXt")), "too_large"),
    "text bomb at the end": (lambda: make_png(FILM, after=_text_bomb(b"zTXt")), "too_large"),
    "many text bombs": (
        lambda: make_png(FILM, after=make_chunk(b"zTXt", b"a\0\0" + forgery.make_zlib_bomb(7)) * 99),
        "too_large",
    ),
    "international text bomb": (lambda: make_png(FILM, after=_text_bomb(b"iTXt", b"\1\0\0\0")), "too_large"),
    "profile bomb": (lambda: make_png(FILM, before=_text_bomb(b"iCCP")), "too_large"),
    "pixel bomb": (lambda: make_png(FILM, pixels=forgery.make_zlib_bomb(1100)), "too_large"),
    "100,000 chunks": (lambda: make_png(FILM, before=make_chunk(b"viRu") * 100_000), "too_large"),
    "animated": (lambda: forgery.make_animated_png(FILM), "multi_frame"),
    "and a zip": (lambda: WHOLE + forgery.make_zip(), "undecodable"),
    "and an empty zip": (lambda: WHOLE + b"PK\5\6" + bytes(18), "undecodable"),
    "and a png": (lambda: WHOLE + WHOLE, "multi_frame"),
}

JPEGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "progressive": (lambda: make_jpeg(FILM, progressive=True), SCORED),
    "rotated by exif": (lambda: forgery.make_rotated_jpeg(FILM), SCORED),
    "colour": (lambda: encode_image(np.dstack([FILM] * 3), ".jpg"), SCORED),
    "page in a segment": (lambda: PHOTO[:2] + forgery.make_comment_segment(HTML) + PHOTO[2:], SCORED),
    "cmyk": (lambda: save_image(Image.fromarray(FILM).convert("CMYK"), "JPEG"), "unsupported_format"),
    "start alone": (lambda: PHOTO[:2], "not_an_image"),
    "jpeg cut in its header": (lambda: PHOTO[:60], "not_an_image"),
    "jpeg cut in the middle": (lambda: PHOTO[: len(PHOTO) // 2], "truncated"),
    "jpeg cut by two bytes": (lambda: PHOTO[:-2], "truncated"),
    "jpeg says it is enormous": (lambda: forgery.change_jpeg_size(PHOTO, 65_500, 65_500), "too_large"),
    "jpeg says it is large": (lambda: forgery.change_jpeg_size(PHOTO, 9600, 9600), "truncated"),
    "jpeg of no height": (lambda: forgery.change_jpeg_size(PHOTO, 0, WIDTH), "not_an_image"),
    "scan bomb": (lambda: forgery.make_scan_bomb(2000, 2000), "too_large"),
    "70,000 segments": (lambda: PHOTO[:2] + forgery.make_comment_segment(b"") * 70_000 + PHOTO[2:], "too_large"),
    "two pictures": (lambda: PHOTO + PHOTO, "multi_frame"),
    "two pictures of a phone": (lambda: forgery.make_two_pictures(FILM), SCORED),
    "and a page": (lambda: PHOTO + HTML, "undecodable"),
    "jpeg and a zip": (lambda: PHOTO + forgery.make_zip(), "undecodable"),
}

DICOMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "dicom": (_dicom(), SCORED),
    "monochrome1": (lambda: a_file(1023 - TEN_BITS, 10, PhotometricInterpretation="MONOCHROME1"), SCORED),
    "monochrome1 called 2": (lambda: a_file(1023 - TEN_BITS, 10), "out_of_distribution"),
    "deflated": (_dicom(syntax=uid.DeflatedExplicitVRLittleEndian), SCORED),
    "tiff too": (lambda: _preamble(_dicom()(), b"II*\0"), SCORED),
    "program too": (lambda: _preamble(_dicom()(), b"\x7fELF\2\1\1"), "not_an_image"),
    "windows program too": (lambda: _preamble(_dicom()(), b"MZ\x90"), "not_an_image"),
    "png too": (lambda: _preamble(_dicom()(), PNG), "not_an_image"),
    "page in the preamble": (lambda: _preamble(_dicom()(), HTML), "not_an_image"),
    "page behind the preamble": (lambda: bytes(128) + b"DICM" + HTML, "not_an_image"),
    "prefix alone": (lambda: bytes(128) + b"DICM", "not_an_image"),
    "no pixel data": (lambda: _dicom()()[: -2 * FILM.size - 12], "truncated"),
    "dicom cut": (lambda: _dicom()()[:-1000], "truncated"),
    "dicom cut in its header": (lambda: _dicom()()[:300], "truncated"),
    "lateral": (_dicom(ViewPosition="LL"), "not_frontal"),
    "multi-frame": (_dicom(NumberOfFrames=2), "multi_frame"),
    "colour dicom": (_dicom(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour"),
    "ct": (_dicom(Modality="CT"), "not_a_radiograph"),
    "hand by its header": (_dicom(BodyPartExamined="HAND"), "not_a_chest"),
    "lying rows": (_dicom(Rows=HEIGHT + 1), "truncated"),
    "enormous rows": (_dicom(Rows=65_535, Columns=65_535), "too_large"),
    "no rows": (_dicom(Rows=0), "too_small"),
    "endless window": (_dicom(WindowCenter=1, WindowWidth=0), "undecodable"),
    "unknown syntax": (lambda: _dicom()().replace(b"10008.1.2.1\0", b"10008.1.2.9\0"), "unsupported_format"),
    "deflated bomb": (
        lambda: forgery.make_deflated_dicom_bomb(_dicom(syntax=uid.DeflatedExplicitVRLittleEndian)()),
        "too_large",
    ),
    "deep sequences": (lambda: forgery.make_nested_dicom(_dicom()(), 20_000), "undecodable"),
    "jpeg 2000 bomb": (lambda: forgery.make_jpeg_2000_dicom(TEN_BITS, 4000), "undecodable"),
    "run-length nonsense": (_dicom(PixelData=encapsulate([bytes(30_000)]), syntax=uid.RLELossless), "undecodable"),
    "jpeg 2000 nonsense": (
        _dicom(PixelData=encapsulate([b"\xff\x4f" * 99 + b"\xff\xd9"]), syntax=uid.JPEG2000),
        "undecodable",
    ),
}

OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "empty_file"),
    **{
        name: (partial(bytes, data), "not_an_image")
        for name, data in {
            "a byte": b"\x89",
            "zeros": bytes(5000),
            "noise": np.random.default_rng(0).bytes(5000),
            "text": b"I am a text, not a radiograph.\n" * 20,
            "json": b'{"image": "iVBORw0KGgo="}',
            "html": HTML,
            "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><image href="file:///etc/passwd"/></svg>',
            "xml bomb": b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>',
            "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
            "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(/etc/passwd) run\n",
            "zip": forgery.make_zip(),
            "zip bomb": forgery.make_zip(50_000_000),
            "gzip bomb": forgery.make_gzip(50_000_000),
            "pickle": forgery.make_pickle(),
            "npy": forgery.make_npy(FILM),
            "sqlite": forgery.make_sqlite(),
            "elf": b"\x7fELF\2\1\1" + bytes(500),
            "windows program": b"MZ\x90\0" + bytes(500),
            "script": b"#!/bin/sh\nrm -rf /\n",
            "heic": b"\0\0\0\x18ftypheic" + bytes(500),
            "ppm": b"P5 64 64 255\n" + bytes(4096),
            "jpeg 2000": encode_image(FILM, ".jp2"),
        }.items()
    },
    **{
        kind.lower(): (partial(save_image, Image.fromarray(FILM), kind), "not_an_image")
        for kind in ("GIF", "BMP", "TIFF", "WEBP", "ICO", "TGA")
    },
    "animated gif": (
        lambda: save_image(Image.fromarray(FILM), "GIF", save_all=True, append_images=[Image.fromarray(255 - FILM)]),
        "not_an_image",
    ),
}

NOT_RADIOGRAPHS = {f"picture of {kind}": (_picture(kind), "out_of_distribution") for kind in KINDS}

# Small files that would need much memory or time.
BOMBS = (
    *("as large as may be", "text bomb", "text bomb at the end", "many text bombs", "international text bomb"),
    *("profile bomb", "pixel bomb", "100,000 chunks", "scan bomb", "70,000 segments", "deflated bomb"),
    *("jpeg 2000 bomb", "xml bomb", "zip bomb", "gzip bomb", "says it is large", "jpeg says it is large"),
    "deep sequences",
)

UPLOADS = {
    **_uploads("image/png", ".png", PNGS),
    **_uploads("image/jpeg", ".jpg", JPEGS),
    **_uploads("application/dicom", ".dcm", DICOMS),
    **_uploads("image/png", ".png", OTHERS),
    **_uploads("image/png", ".png", NOT_RADIOGRAPHS),
    "png called text": HostileUpload(lambda: WHOLE, "text/plain", "notes.txt", SCORED),
    "png called jpeg": HostileUpload(lambda: WHOLE, "image/jpeg", "chest.jpg", SCORED),
    "dicom called png": HostileUpload(_dicom(), "image/png", "chest.png", SCORED),
}


def assert_scores_match(response: dict[str, Any], film: preprocess.Grey = FILM) -> None:
    """Checks that a response has the probabilities of the bundle for a film."""
    prediction = make_gated_bundle().predict([preprocess.resize(film, SIZE)])
    assert list(response["probabilities"].values()) == pytest.approx(list(prediction.probabilities[0]), rel=1e-3)
