"""The program of a decoder process; `chestai.imaging.sandbox` runs it as a module, and says why."""

import ctypes
import dataclasses
import fcntl
import json
import logging
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom import config

from chestai.imaging import jpeg, preprocess
from chestai.imaging.dicom import reader
from chestai.imaging.dicom.header import Facts, is_dicom
from chestai.imaging.dicom.syntaxes import LOSSLESS
from chestai.imaging.errors import Unreadable
from chestai.imaging.fast_png import kernel
from chestai.imaging.preprocess import Grey
from chestai.imaging.sandbox import CPU_SECONDS, FACTS, IDENTITY

MEMORY_BYTES = 4 * 2**30  # of address space: four times what 100 megapixels of JPEG 2000 need
LARGE_PIXELS = 2**24  # decoding takes several bytes a pixel, so larger images take turns
NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of prctl(2)


def serve(connection: Connection, turn: int, stderr: int) -> None:
    """Serves requests, each a word and a file, until the connection is closed.

    Args:
        turn: File descriptor whose lock lets one process at a time decode a large image.
        stderr: File descriptor from which to read what libraries write to stderr.
    """
    while True:
        try:
            what, data = connection.recv_bytes().decode(), connection.recv_bytes()
        except EOFError:
            return
        _limit_cpu_time()
        found, grey = _answer(what, data, turn, stderr)
        connection.send_bytes(json.dumps(found).encode())
        if grey is not None:
            connection.send_bytes(np.ascontiguousarray(grey).data.cast("B"))


def _answer(what: str, data: bytes, turn: int, stderr: int) -> tuple[dict[str, Any], Grey | None]:
    """The facts or identity of a file, or its shape, facts and grey levels for DECODE; or the reason of a rejection."""
    try:
        if what == FACTS:
            return dataclasses.asdict(reader.read_facts(data)), None
        if what == IDENTITY:
            return dataclasses.asdict(reader.read_identity(data)), None
        grey, facts = _decode(data, turn, stderr)
        return {"shape": grey.shape, "facts": None if facts is None else dataclasses.asdict(facts)}, grey
    except Unreadable as error:
        return {"reason": error.reason, "detail": error.detail}, None
    except MemoryError:
        return {"reason": "too_large", "detail": "it takes too much memory to decode"}, None
    except Exception:  # pydicom raises many kinds, and quotes values in them
        return {"reason": "undecodable", "detail": "the data are damaged"}, None


def _decode(data: bytes, turn: int, stderr: int) -> tuple[Grey, Facts | None]:
    if is_dicom(data):
        dataset = reader.open_dataset(data)
        with _large_image_turn(dataset.Rows * dataset.Columns, turn):
            _read(stderr)
            grey = reader.decode(dataset)
            _check_warnings(dataset.file_meta.TransferSyntaxUID, _read(stderr))
            return grey, reader.find_facts(dataset)
    with _large_image_turn(_count_pixels(data), turn):
        return preprocess.decode_picture(data), None


def _count_pixels(data: bytes) -> int:
    """The pixels of a PNG or JPEG file; of another file, which is rejected anyway, any number."""
    if data.startswith(jpeg.SIGNATURE):
        frame = jpeg.check_jpeg(data)
        return frame.height * frame.width
    return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")


def _check_warnings(syntax: str, text: bytes) -> None:
    """Rejects an image of which GDCM's libjpeg says that data are missing: it fills them up, and says so on stderr."""
    if syntax in LOSSLESS and text:
        reason = "truncated" if b"premature end" in text else "undecodable"
        raise Unreadable(reason, "the JPEG data are damaged")


def _read(stderr: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(stderr, 2**16)
    return b""


@contextmanager
def _large_image_turn(pixels: int, turn: int) -> Iterator[None]:
    """Waits until no other process decodes a large image, if this one is large."""
    if pixels <= LARGE_PIXELS:
        yield
        return
    fcntl.lockf(turn, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(turn, fcntl.LOCK_UN)


def _restrict() -> None:
    """Gives up what a decoder does not need; a file that breaks it cannot get it back."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _capture_stderr() -> int:
    """Leads stderr into a pipe that drops what it has no room for, and returns its other end."""
    stderr, end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.dup2(end, 2)
    os.close(end)
    return stderr


def _limit_cpu_time() -> None:
    """Ends this process after `CPU_SECONDS` more, and up to one second beyond."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS, -1))


if __name__ == "__main__":
    config.settings.reading_validation_mode = config.IGNORE
    warnings.simplefilter("ignore")
    logging.disable()
    cv2.setNumThreads(1)
    kernel.only_load(Path(sys.argv[3]))
    _restrict()
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]), _capture_stderr())
