"""Stores received images, byte for byte, by their SHA-256 below the lake's `kept/`.

The time of a file is when its image was last received, so that retention can tell old files that have no record.
"""

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pyarrow import fs

from chestai.clock import now
from chestai.lake.files import read_bytes, resolve
from chestai.lake.lake import Lake

log = logging.getLogger("ray.serve")

FOLDER = "kept"
FILE_NAME = re.compile(r"([0-9a-f]{64})(\..*)?")  # an image ID; with a suffix, of a process that died while it wrote
LIST_SIZE = 1000
LOG_INTERVAL_S = 60.0  # between two log lines about failures
REFRESH_TIME = timedelta(hours=1)  # after which an object that is received again is written again


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
        """Writes a file atomically, or refreshes the time of an existing one; returns its URI. Raises OSError."""
        uri = self.uri(image_id)
        if self._lake.local:
            _write(Path(uri), data)
            return uri
        filesystem, path = resolve(uri)
        info = filesystem.get_file_info(path)
        if info.type != fs.FileType.File or info.size != len(data) or info.mtime < now() - REFRESH_TIME:
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

    def list_old(self, before: datetime) -> Iterator[list[str]]:
        """Yields lists of up to `LIST_SIZE` image IDs whose files were last received before. Raises OSError."""
        for number in range(256):
            filesystem, path = resolve(self._lake.uri(FOLDER, f"{number:02x}"))
            files = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
            names = [FILE_NAME.fullmatch(file.base_name) for file in files if file.mtime < before]
            found = sorted({name[1] for name in names if name})
            yield from (found[start : start + LIST_SIZE] for start in range(0, len(found), LIST_SIZE))

    def remove_old(self, image_id: str, before: datetime) -> None:
        """Deletes a file unless it was received again since. Raises OSError."""
        uri = self.uri(image_id)
        if self._lake.local:
            for file in Path(uri).parent.glob(f"{image_id}*"):
                _remove_old(file, before.timestamp())
            return
        filesystem, path = resolve(uri)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File and info.mtime < before:
            filesystem.delete_file(path)

    def count_failure(self, error: BaseException) -> None:
        """Counts an image that could not be stored; logs this at most once a minute."""
        with self._lock:
            self.failures += 1
            if time.monotonic() - self._logged_at < LOG_INTERVAL_S:
                return
            self._logged_at = time.monotonic()
        log.error("images are scored but not stored, %d so far: %s", self.failures, error or type(error).__name__)


def _remove_old(file: Path, before: float) -> None:
    """Deletes a file that is older; a process may receive it again at the same moment."""
    doomed = file.with_name(f"{file.name}.old")
    with suppress(FileNotFoundError):
        file.rename(doomed)
        if doomed.stat().st_mtime >= before:
            with suppress(FileExistsError):  # it was written again
                os.link(doomed, file)
        doomed.unlink()


def _write(path: Path, data: bytes) -> None:
    with suppress(FileNotFoundError):
        if path.stat().st_size == len(data):
            os.utime(path)
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
