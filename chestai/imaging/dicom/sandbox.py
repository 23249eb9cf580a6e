"""DICOM files, read in a child process: what the header says, and the pixels as 8-bit grey.

pydicom loads GDCM for compressed pixels, and GDCM ends its process on some damaged JPEG, JPEG-LS and JPEG 2000 data (a
segmentation fault, or a C++ exception that nobody catches), puts its own zlib in the place of the system's, and bounds
neither memory nor time. In a child of our own (`imaging.dicom.reader`) damage costs one refused image. Nor do pydicom's
warnings, log lines and errors leave it, which quote values of patients. Processes that meet no DICOM start without it.
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

FACTS, DECODE = "facts", "decode"  # what a child can be asked
TIMEOUT_S = 60.0

# How files begin that are something else too. A preamble may be anything, and programs hide there; TIFF is its one
# proper use (PS3.10 Section 7.1).
TWO_NATURES = (b"\x89PNG", b"\xff\xd8\xff", b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!", b"<", b"%PDF", b"PK\3\4")


@dataclass(frozen=True)
class Facts:
    """What a header says, as in `gold/images`.

    image_id, patient_id, study_id: SOP Instance UID, Patient ID, Study Instance UID. age_years: None if not known or
    impossible. sex: M, F or None. view: PA, AP, or None where the header is silent. height, width: pixels.
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
    """Read the header of a DICOM file.

    Raises:
        Unreadable: for every file that is not a whole, single frontal chest radiograph of a known patient.
    """
    found, _ = _ask(FACTS, data)
    return Facts(**found)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a DICOM file to `uint8` grey levels of shape (H, W): see `chestai.imaging.dicom.grayscale`.

    Raises:
        Unreadable: as `read_facts`, and for pixels that cannot be decoded.
    """
    found, grey = _ask(DECODE, data)
    return np.frombuffer(bytearray(grey), np.uint8).reshape(found["shape"])  # writable, as those of other formats


class _Child:
    """A process that answers one question after another. Of use to one thread at a time."""

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
        """Raises `OSError` or `EOFError` where the process ended or is stuck."""
        self.connection.send_bytes(what.encode())
        self.connection.send_bytes(data)
        if not self.connection.poll(TIMEOUT_S):
            raise OSError("no answer in time")
        return json.loads(self.connection.recv_bytes()), self.connection.recv_bytes(MAX_PIXELS)

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


_child: _Child | None = None
_asking = threading.Lock()


def _ask(what: str, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Ask the child, started where there is none. Raises `Unreadable` where the child does, or dies of the file."""
    if data.startswith(TWO_NATURES):
        raise Unreadable("not_an_image", "the DICOM preamble is the head of another format's file")
    with _asking:
        answer = _try(what, data) or _try(what, data)  # it may have died of what the file before did to its memory
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
