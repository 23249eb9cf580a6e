"""An append-only file of lines that outlives its process: synced to disk, read in order, taken over by the next one."""

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

SUFFIX = ".jsonl"


class Spool:
    """A file owned through a lock, which the operating system releases when the process dies. Not thread-safe.

    Attributes:
        size: Bytes of complete lines.
        offset: Bytes of lines that were removed with `pop`.
        count: Lines left.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file = file
        self.size = self.offset = self.count = 0

    @classmethod
    def create(cls, folder: Path) -> "Spool":
        """Creates a new file that only its owner may read. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}{SUFFIX}"
        unlocked = path.with_suffix(".new")  # other processes ignore this name, so nobody takes the file over yet
        file = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(path)
        sync_folder(folder)
        return cls(path, file)

    @classmethod
    def take_over(cls, folder: Path) -> Iterator["Spool"]:
        """Yields the files of dead processes, each locked by this process."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # another process was faster
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                available = os.fstat(file).st_nlink > 0
            except BlockingIOError:
                available = False
            if not available:
                os.close(file)
                continue
            spool = cls(path, file)
            spool._count_lines()
            yield spool

    def append(self, line: bytes) -> None:
        """Writes a line (without its newline) and syncs it to disk; all of it or nothing. Raises OSError."""
        data = memoryview(line + b"\n")
        at = self.size
        try:
            while data:
                written = os.pwrite(self._file, data, at)
                data, at = data[written:], at + written
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size = at
        self.count += 1

    def peek(self) -> bytes | None:
        """Returns the first line left; None if there is none."""
        if self.offset == self.size:
            return None
        line, at = b"", self.offset
        while b"\n" not in line:
            line += os.pread(self._file, 1 << 16, at + len(line))
        return line.split(b"\n", 1)[0]

    def pop(self, line: bytes) -> None:
        """Removes the line that `peek` returned; truncates the file when no line is left."""
        self.offset += len(line) + 1
        self.count -= 1
        if self.offset == self.size:
            os.ftruncate(self._file, 0)
            self.size = self.offset = 0

    def close(self) -> None:
        """Releases the file. An empty one is deleted; another stays for the next process."""
        if self.size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _count_lines(self) -> None:
        """Counts what a dead process left and cuts off an incomplete last line, whose `append` never returned."""
        at = 0
        while piece := os.pread(self._file, 1 << 20, at):
            if b"\n" in piece:
                self.size = at + piece.rindex(b"\n") + 1
            self.count += piece.count(b"\n")
            at += len(piece)
        os.ftruncate(self._file, self.size)


def sync_folder(folder: Path) -> None:
    """Syncs a folder, without which the name of a new file may not survive a power cut."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
