"""Decoder processes: files are decoded where damage, bombs and secrets cannot meet.

pydicom loads GDCM for compressed pixels, and GDCM ends its process on some damaged JPEG, JPEG-LS and JPEG 2000 data (a
segmentation fault, or an uncaught C++ exception), replaces the system's zlib by its own, and limits neither memory nor
time. In a decoder process (`chestai.imaging.decoder_process`) damage costs one rejected image. A decoder process has
nothing of its parent's environment, a limit of memory and of CPU time for each file, and keeps pydicom's warnings and
errors, which quote values of patients, to itself.

Batch work decodes DICOM files in one such process and other formats in its own; the endpoint decodes all in several.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from multiprocessing.connection import Pipe
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from chestai.imaging.dicom.header import Facts, Identity, check_preamble, is_dicom
from chestai.imaging.errors import Unreadable
from chestai.imaging.fast_png import kernel, store
from chestai.imaging.png import SIGNATURE as PNG

Received = TypeVar("Received")

FACTS, IDENTITY, DECODE = "facts", "identity", "decode"  # the requests
CPU_SECONDS = 10  # for a file; JPEG 2000, the slowest, took 0.13 s a megapixel (tests/bench/checks.py)
WALL_SECONDS = 60.0  # for a file; on a busy machine much of it is waiting
ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # what a Python may need to start


class Sandbox:
    """A bounded number of decoder processes, started when they are needed. Its methods may be called from any thread.

    A call waits until a process is free.
    """

    def __init__(self, processes: int = 1) -> None:
        self._idle: queue.LifoQueue[_Decoder | None] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(None)

    def read_facts(self, data: bytes) -> Facts:
        """Reads the header of a DICOM file.

        Raises:
            Unreadable: Anything but a whole, single frontal chest radiograph of a known patient.
        """
        return Facts(**self._ask(FACTS, data, lambda decoder, found: found))

    def read_identity(self, data: bytes) -> Identity:
        """Reads which object a DICOM file is, whatever it shows. Raises Unreadable: Its header does not say."""
        return Identity(**self._ask(IDENTITY, data, lambda decoder, found: found))

    def decode(self, data: bytes, reserve: Callable[[int], None] = lambda size: None) -> NDArray[np.uint8]:
        """Decodes a file; as `decode_with_facts`, without the facts."""
        return self.decode_with_facts(data, reserve)[0]

    def decode_with_facts(
        self, data: bytes, reserve: Callable[[int], None] = lambda size: None
    ) -> tuple[NDArray[np.uint8], Facts | None]:
        """Decodes a PNG, JPEG or DICOM file to uint8 grey levels (H, W), as `chestai.imaging.preprocess.decode`.

        Args:
            reserve: Called with the bytes of the image before it is received; what it raises ends the call.

        Returns:
            The image, and the facts of a DICOM header.

        Raises:
            Unreadable: The file is no whole, valid image, or its decoder needs too much memory or time.
        """

        def receive(decoder: "_Decoder", found: dict[str, Any]) -> tuple[NDArray[np.uint8], Facts | None]:
            grey = np.empty(found["shape"], np.uint8)
            reserve(grey.size)
            decoder.connection.recv_bytes_into(grey.data.cast("B"))
            return grey, None if found["facts"] is None else Facts(**found["facts"])

        return self._ask(DECODE, data, receive)

    def close(self) -> None:
        """Ends the processes that are idle; a later call starts new ones."""
        idle = []
        with suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for decoder in idle:
            if decoder is not None:
                decoder.stop()
            self._idle.put(None)

    @cached_property
    def _turn(self) -> IO[bytes]:
        """The file whose lock lets one process at a time decode a large image."""
        return tempfile.TemporaryFile()

    def _ask(self, what: str, data: bytes, receive: Callable[["_Decoder", dict[str, Any]], Received]) -> Received:
        if is_dicom(data):
            check_preamble(data)
        elif data.startswith(PNG):
            kernel.find()  # has it built if need be: a decoder process can only load it
        decoder = self._idle.get()
        try:
            while True:
                fresh = decoder is None
                decoder = decoder or _Decoder(self._turn.fileno())
                try:
                    found = decoder.ask(what, data)
                    if "reason" in found:
                        raise Unreadable(found["reason"], found["detail"])
                    return receive(decoder, found)
                except Unreadable:
                    raise
                except (OSError, EOFError) as error:
                    timed_out, decoder = decoder.stop() or isinstance(error, TimeoutError), None
                    if timed_out:
                        raise Unreadable("undecodable", f"it takes more than {CPU_SECONDS} s to decode") from error
                    if fresh:  # an older one may have died of memory that an earlier file corrupted: try again
                        raise Unreadable("undecodable", "the data are damaged: their decoder broke off") from error
                except BaseException:
                    decoder.stop()
                    decoder = None
                    raise
        finally:
            self._idle.put(decoder)


class _Decoder:
    """A decoder process that serves one request after another, for one thread at a time."""

    def __init__(self, turn: int) -> None:
        """
        Args:
            turn: File descriptor whose lock lets one process at a time decode a large image.
        """
        self.connection, theirs = Pipe()
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        with theirs:
            arguments = [str(theirs.fileno()), str(turn), str(store.find_folder())]
            command = [sys.executable, "-P", "-m", "chestai.imaging.decoder_process", *arguments]
            self.process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno(), turn],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"},
                cwd="/",
            )

    def ask(self, what: str, data: bytes) -> dict[str, Any]:
        """Sends a request and returns its answer.

        Raises:
            TimeoutError: There is none in time.
            OSError, EOFError: The process died.
        """
        self.connection.send_bytes(what.encode())
        self.connection.send_bytes(data)
        if not self.connection.poll(WALL_SECONDS):
            raise TimeoutError
        answer: dict[str, Any] = json.loads(self.connection.recv_bytes())
        return answer

    def stop(self) -> bool:
        """Kills the process. Returns whether its CPU time had ended it."""
        self.connection.close()
        self.process.kill()
        return self.process.wait() == -signal.SIGXCPU


_shared = Sandbox()  # of this process


def _forget() -> None:
    """A forked process starts a decoder of its own: two that shared one would get each other's images."""
    global _shared
    _shared = Sandbox()


os.register_at_fork(after_in_child=_forget)


def read_facts(data: bytes) -> Facts:
    """`Sandbox.read_facts` in this process's own sandbox."""
    return _shared.read_facts(data)


def decode(data: bytes) -> NDArray[np.uint8]:
    """`Sandbox.decode` in this process's own sandbox."""
    return _shared.decode(data)
