"""Why a file is no usable image: a closed set of reasons, and the size limits of all formats."""

import re

MIN_SIDE = 32
MAX_PIXELS = 100_000_000  # a 10,000 x 10,000 detector; more is a decompression bomb

REASONS = (
    "empty_file",
    "not_an_image",
    "unsupported_format",
    "truncated",
    "too_large",
    "too_small",
    "undecodable",
    "multi_frame",
    # of DICOM files only, by their header
    "not_a_radiograph",
    "not_a_chest",
    "not_frontal",
    "colour",
)


PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8")  # first bytes of a PNG and of a JPEG
# The first byte that may not follow the end of an image. Padding, line ends, Ctrl-Z, and a second end marker of a JPEG
# may. It is searched for, because Python before 3.11.5 matches possessive repeats of alternatives wrongly.
REST = re.compile(rb"[^\0\t\n\r\x1a \xff\xd9]|\xff(?=\xd8)|(?<!\xff)\xd9")
SAMSUNG = (b"SEFH", b"SEFT")  # begin and end the directory of notes that phones append
FOREIGN = (b"PK\3\4", b"PK\5\6", b"%PDF", b"\x7fELF", b"ftyp", b"<script", b"<html", b"<?php", b"#!/", b"DICM")


class Unreadable(Exception):
    """An input that is not a usable image; `reason` is one of `REASONS`, `detail` is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def check_size(height: int, width: int) -> None:
    """Raises `Unreadable` for an image of an impossible size in pixels."""
    if width * height > MAX_PIXELS:
        raise Unreadable("too_large", f"{width} x {height} pixels; the limit is {MAX_PIXELS}")
    if min(width, height) < MIN_SIDE:
        raise Unreadable("too_small", f"{width} x {height} pixels; at least {MIN_SIDE} a side are needed")


def find_rest(data: bytes, end: int) -> bytes:
    """The data after an image's end, whose last byte is not 0xFF, without padding."""
    rest = REST.search(data, end)
    return data[rest.start() :] if rest else b""


def check_rest(data: bytes, end: int) -> None:
    """Raises `Unreadable` for data after an image's end: a polyglot file, or a second picture."""
    rest = find_rest(data, end)
    notes = rest.endswith(SAMSUNG[1]) and SAMSUNG[0] in rest
    if notes and not any(mark in rest for mark in (*FOREIGN, *PICTURES)):
        return
    if rest.startswith(PICTURES):
        raise Unreadable("multi_frame", "a second picture follows the image's end")
    if rest:
        raise Unreadable("undecodable", f"{len(rest)} bytes of something else follow the image's end")
