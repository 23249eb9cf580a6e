"""Images as they were received, kept below the lake's `kept/` by their content."""

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
QUIET_S = 60.0  # between two lines of the log that say that keeping fails


class ImageStore:
    """A file is at `<lake>/kept/<first two hex digits>/<SHA-256>`, in a local lake for this user's eyes alone.

    Its methods block, and may be called from any thread.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake, self._lock = lake, threading.Lock()
        self._failed, self._told_at = 0, -QUIET_S

    def uri(self, image_id: str) -> str:
        """Where a file is, if it is."""
        return self._lake.uri(FOLDER, image_id[:2], image_id)

    def keep(self, image_id: str, data: bytes) -> str:
        """Write a file, whole or not at all, unless it is there; return its URI. Raises OSError."""
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
        """The bytes as they were received. Raises OSError."""
        return read_bytes(self.uri(image_id))

    def remove(self, image_id: str) -> None:
        """Delete a file, and what a process that died left of it; nothing there is no error. Raises OSError."""
        uri = self.uri(image_id)
        if self._lake.local:
            for one in Path(uri).parent.glob(f"{image_id}*"):
                one.unlink(missing_ok=True)
            return
        filesystem, path = resolve(uri)
        if filesystem.get_file_info(path).type == fs.FileType.File:
            filesystem.delete_file(path)

    def failed(self) -> int:
        """How many images were answered and not kept, for a gauge."""
        return self._failed

    def note_failure(self, error: BaseException) -> None:
        """Count an image that could not be kept, and say so in the log, once a minute."""
        with self._lock:
            self._failed += 1
            if time.monotonic() - self._told_at < QUIET_S:
                return
            self._told_at = time.monotonic()
        log.error("images are answered and not kept, %d so far: %s", self._failed, error or type(error).__name__)


def _write(path: Path, data: bytes) -> None:
    if path.exists() and path.stat().st_size == len(data):
        return
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # 0600
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
