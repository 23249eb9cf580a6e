"""A file of lines that outlives its process: appended and synced, read in order, taken over by whoever comes next."""

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

SUFFIX = ".jsonl"


class Spool:
    """One file, held by a lock: whoever holds it owns it, and a process that dies lets go. Not for several threads.

    Attributes:
        size: bytes of whole lines.
        taken: bytes of them that need not be read again.
        count: lines that are left.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file = file
        self.size = self.taken = self.count = 0

    @classmethod
    def make(cls, folder: Path) -> "Spool":
        """A new file that only its owner reads. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}{SUFFIX}"
        new = path.with_suffix(".new")  # a name that nobody looks for, until it is locked
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(path)
        _sync_folder(folder)
        return cls(path, file)

    @classmethod
    def left(cls, folder: Path) -> Iterator["Spool"]:
        """The files that dead processes left, one after another, each taken over."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # another process was quicker
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone = os.fstat(file).st_nlink == 0
            except BlockingIOError:
                gone = True
            if gone:
                os.close(file)
                continue
            spool = cls(path, file)
            spool._measure()
            yield spool

    def append(self, line: bytes) -> None:
        """Write a line (without its end) and wait until it is on the disk; all of it or nothing. Raises OSError."""
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

    def first(self) -> bytes | None:
        """The first line that is left, None where none is."""
        if self.taken == self.size:
            return None
        line, at = b"", self.taken
        while b"\n" not in line:
            line += os.pread(self._file, 1 << 16, at + len(line))
        return line.split(b"\n", 1)[0]

    def take(self, line: bytes) -> None:
        """The line that `first` gave is done with; an empty file gives its room back."""
        self.taken += len(line) + 1
        self.count -= 1
        if self.taken == self.size:
            os.ftruncate(self._file, 0)
            self.size = self.taken = 0

    def close(self) -> None:
        """Let go; a file without lines is removed, another stays for the next process."""
        if self.size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _measure(self) -> None:
        """Count what a dead process left; what stands after the last end of a line was never promised to anybody."""
        at = 0
        while piece := os.pread(self._file, 1 << 20, at):
            if b"\n" in piece:
                self.size = at + piece.rindex(b"\n") + 1
            self.count += piece.count(b"\n")
            at += len(piece)
        os.ftruncate(self._file, self.size)


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only with its folder."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
