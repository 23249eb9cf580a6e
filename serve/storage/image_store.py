"""Stores received images, byte for byte, by their SHA-256 below the lake's `kept/`."""

import logging
import os
import tempfile
import threading
import time
from pathlib import Path

from pyarrow import fs

from chestai.lake.files import read_bytes, resolve
from chestai.lake.lake import Lake

log = logging.getLogger("ray.serve")

FOLDER = "kept"
LOG_INTERVAL_S = 60.0  # between two log lines about failures


class ImageStore:
    """A file is at `<lake>/kept/<first two hex digits>/<SHA-256>`; in a local lake only this user can read it.

    Its methods block, and may be called from any thread. `failures` counts images that were scored but not stored.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake, self._lock = lake, threading.Lock()
        self.failures, self._logged_at = 0, -LOG_INTERVAL_S

    def uri(self, image_id: str) -> str:
        """Returns where the file of an image is, if it is stored."""
        return self._lake.uri(FOLDER, image_id[:2], image_id)

    def save(self, image_id: str, data: bytes) -> str:
        """Writes a file atomically, unless it exists; returns its URI. Raises OSError."""
        uri = self.uri(image_id)
        if self._lake.local:
            _write(Path(uri), data)
            return uri
        filesystem, path = resolve(uri)
        info = filesystem.get_file_info(path)
        if info.type != fs.FileType.File or info.size != len(data):
            self._lake.write_bytes(data, FOLDER, image_id[:2], image_id)
        return uri

    def read(self, image_id: str) -> bytes:
        """Returns the bytes as they were received. Raises OSError."""
        return read_bytes(self.uri(image_id))

    def remove(self, image_id: str) -> None:
        """Deletes a file, if it exists, and temporary files of processes that died. Raises OSError."""
        uri = self.uri(image_id)
        if self._lake.local:
            for file in Path(uri).parent.glob(f"{image_id}*"):
                file.unlink(missing_ok=True)
            return
        filesystem, path = resolve(uri)
        if filesystem.get_file_info(path).type == fs.FileType.File:
            filesystem.delete_file(path)

    def count_failure(self, error: BaseException) -> None:
        """Counts an image that could not be stored; logs this at most once a minute."""
        with self._lock:
            self.failures += 1
            if time.monotonic() - self._logged_at < LOG_INTERVAL_S:
                return
            self._logged_at = time.monotonic()
        log.error("images are scored but not stored, %d so far: %s", self.failures, error or type(error).__name__)


def _write(path: Path, data: bytes) -> None:
    if path.exists() and path.stat().st_size == len(data):
        return
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
