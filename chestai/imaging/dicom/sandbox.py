"""Reads DICOM files in a child process: the header, and the pixels as 8-bit grey.

pydicom loads GDCM for compressed pixels, and GDCM ends its process on some damaged JPEG, JPEG-LS and JPEG 2000 data (a
segmentation fault, or an uncaught C++ exception), replaces the system's zlib by its own, and limits neither memory nor
time. In a child process (`chestai.imaging.dicom.reader`) damage costs one rejected image. It also keeps pydicom's
warnings and errors, which quote values of patients. Processes that read no DICOM start without it.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestai.imaging.errors import MAX_PIXELS, Unreadable

FACTS, DECODE = "facts", "decode"  # the requests
TIMEOUT_S = 60.0

# Preambles of polyglot files. A preamble may be anything, and programs hide there; TIFF is its one proper use (PS3.10
# Section 7.1).
POLYGLOT = (b"\x89PNG", b"\xff\xd8\xff", b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!", b"<", b"%PDF", b"PK\3\4")


@dataclass(frozen=True)
class Facts:
    """The facts of a header, as in `gold/images`.

    image_id, patient_id, study_id: SOP Instance UID, Patient ID, Study Instance UID. age_years: None if not known or
    impossible. sex: M, F or None. view: PA, AP, or None if the header does not say. height, width: pixels.
    """

    image_id: str
    patient_id: str
    study_id: str | None
    age_years: float | None
    sex: str | None
    view: str | None
    height: int
    width: int


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: the prefix after the preamble (PS3.10 Section 7.1)."""
    return data[128:132] == b"DICM"


def read_facts(data: bytes) -> Facts:
    """Reads the header of a DICOM file.

    Raises:
        Unreadable: Anything but a whole, single frontal chest radiograph of a known patient.
    """
    found, _ = _ask(FACTS, data)
    return Facts(**found)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decodes a DICOM file to uint8 grey levels (H, W), see `chestai.imaging.dicom.grayscale`.

    Raises:
        Unreadable: As `read_facts`, and pixels that cannot be decoded.
    """
    found, grey = _ask(DECODE, data)
    return np.frombuffer(bytearray(grey), np.uint8).reshape(found["shape"])  # writable, as those of other formats


class _Child:
    """A reader process that serves one request after another, for one thread at a time."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "chestai.imaging.dicom.reader", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
            )

    def ask(self, what: str, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Sends a request and returns its answer. Raises `OSError` or `EOFError` if the process died or hangs."""
        self.connection.send_bytes(what.encode())
        self.connection.send_bytes(data)
        if not self.connection.poll(TIMEOUT_S):
            raise OSError("no answer in time")
        return json.loads(self.connection.recv_bytes()), self.connection.recv_bytes(MAX_PIXELS)

    def stop(self) -> None:
        """Kills the process."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


_child: _Child | None = None
_asking = threading.Lock()


def _ask(what: str, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Asks the child, which is started if needed. Raises `Unreadable` if the child does, or dies of the file."""
    if data.startswith(POLYGLOT):
        raise Unreadable("not_an_image", "the DICOM preamble is the head of another format's file")
    with _asking:
        answer = _try(what, data) or _try(what, data)  # it may have died of memory that an earlier file corrupted
    if answer is None:
        raise Unreadable("undecodable", "the DICOM data are damaged: their decoder broke off")
    found, grey = answer
    if "reason" in found:
        raise Unreadable(found["reason"], found["detail"])
    return found, grey


def _try(what: str, data: bytes) -> tuple[dict[str, Any], bytes] | None:
    global _child
    if _child is None:
        _child = _Child()
    try:
        return _child.ask(what, data)
    except (OSError, EOFError):
        _child.stop()
        _child = None
        return None


def _forget() -> None:
    """A forked process starts a child of its own: two that shared one would get each other's images."""
    global _child, _asking
    _child, _asking = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
