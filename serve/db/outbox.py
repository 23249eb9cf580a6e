"""Writes that must not be lost: into the database, or, while it is away, into a file from where they come in later.

A write is on disk, here or there, when `submit` returns. What waits is written in order, as soon as the database is
back, by a thread; a process that dies leaves its file to the next one. Every write has a key of its own
(`serve.db.records`, `serve.db.audit`), so that one whose commit was not heard of can be written again: it counts once.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError

from serve.db.database import is_unavailable
from serve.db.spool import Spool

log = logging.getLogger("chestai.state")

Write = tuple[str, Sequence[Any]]  # its kind, and its content in JSON's types
Apply = Callable[[Sequence[Write]], None]

RETRY_S = 1.0
LOOK_S = 30.0  # between two looks for what processes left that died meanwhile
CATCH_UP_S = 0.1  # by which a submission is slowed down while old ones come in, or they would never be done
WRONG = (IntegrityError, DataError, ValueError, TypeError, LookupError)  # will not be right later


class OutboxFull(RuntimeError):
    """The database is away, and no more can be kept for it."""


@dataclass(frozen=True)
class OutboxCounts:
    """For gauges. Counted in submissions, since the start, but for `waiting` and `waiting_bytes`, which are as of now.

    direct: went into the database at once. spooled: had to wait. late: of those, here and of dead processes, written
    since. rejected: the database refused them as wrong; they lie beside the files in `rejected`, and none is lost.
    """

    direct: int
    spooled: int
    late: int
    rejected: int
    waiting: int
    waiting_bytes: int


class Outbox:
    """Takes writes from any thread."""

    def __init__(self, apply: Apply, folder: Path, limit_mb: int, retry_s: float = RETRY_S) -> None:
        """Take over what dead processes left in the folder, and start the thread.

        Args:
            apply: does a submission's writes in one transaction; the same again changes nothing.
            folder: local, of this process and others like it.
            limit_mb: the most that a process keeps.
            retry_s: between two looks whether the database is back.

        Raises:
            OSError: the folder cannot be written to.
        """
        self._apply, self._folder, self._limit, self._retry_s = apply, folder, limit_mb * 2**20, retry_s
        self._lock = threading.Lock()
        self._wake, self._hurry, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._closing = self._catching_up = False
        self._direct = self._spooled = self._late = self._rejected = 0
        self._own = Spool.make(folder)
        self._spools = [self._own]
        self._take_over()
        self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)
        self._thread.start()

    def submit(self, writes: Sequence[Write]) -> None:
        """Do writes, all or none of them; they are safe when this returns.

        Raises:
            BacklogFull: the database is away and the file is full.
            OSError: the database is away and the file cannot be written.
            Exception: what `apply` raises for a write that is wrong.
        """
        line = json.dumps(list(writes), separators=(",", ":"), allow_nan=False).encode()
        if self._idle.is_set():
            try:
                self._apply(writes)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.warning("the database is away: writes are kept in %s (%s)", self._own.path, type(error).__name__)
            else:
                with self._lock:
                    self._direct += 1
                return
        with self._lock:
            if self._closing:
                raise RuntimeError("the backlog is closed")
            if self._own.size + len(line) >= self._limit:
                limit = f"state.backlog_mb={self._limit // 2**20}"
                raise OutboxFull(f"the database is away, and {self._own.path} is full: {limit} are all it may take")
            self._own.append(line)
            self._spooled += 1
            self._update()
        self._wake.set()
        if self._catching_up:
            self._idle.wait(CATCH_UP_S)

    def flush(self, timeout_s: float) -> bool:
        """Try at once to write what waits; whether nothing waits any more."""
        self._hurry.set()
        self._wake.set()
        return self._idle.wait(timeout_s)

    def counts(self) -> OutboxCounts:
        """How much went where."""
        with self._lock:
            return OutboxCounts(
                direct=self._direct,
                spooled=self._spooled,
                late=self._late,
                rejected=self._rejected,
                waiting=sum(spool.count for spool in self._spools),
                waiting_bytes=sum(spool.size - spool.taken for spool in self._spools),
            )

    def close(self) -> None:
        """End the thread; what still waits stays on disk for the next process."""
        with self._lock:
            self._closing = True
            self._idle.clear()
        self._hurry.set()
        self._wake.set()
        self._thread.join()
        for spool in self._spools:
            spool.close()

    def _run(self) -> None:
        while not self._closing:
            self._hurry.clear()
            try:
                self._drain()
            except Exception as error:
                self._catching_up = False
                if not is_unavailable(error):
                    log.error("what waits cannot be written (%s)", type(error).__name__)
                self._hurry.wait(self._retry_s)
            else:
                self._wake.wait(LOOK_S)
                self._wake.clear()

    def _drain(self) -> None:
        """Write all that waits. Raises what shows that the database is away."""
        self._take_over()
        while not self._closing:
            with self._lock:
                spool = next((spool for spool in self._spools if spool.count), None)
                line = None if spool is None else spool.first()
            if spool is None or line is None:
                break
            self._replay(line)
            self._catching_up = True
            with self._lock:
                spool.take(line)
                self._update()
        self._catching_up = False
        with self._lock:
            for spool in [spool for spool in self._spools if spool is not self._own and not spool.count]:
                self._spools.remove(spool)
                spool.close()

    def _take_over(self) -> None:
        with self._lock:
            self._spools[:0] = Spool.left(self._folder)  # before its own: what is older goes first
            self._update()

    def _replay(self, line: bytes) -> None:
        try:
            self._apply([(str(kind), content) for kind, content in json.loads(line)])
        except Exception as error:
            if not isinstance(error, WRONG):
                raise
            rejected = self._folder / "rejected"
            log.error("a write that waited is wrong, it is kept in %s (%s)", rejected, type(error).__name__)
            with open(rejected, "ab", opener=_private) as file:
                file.write(line + b"\n")
            self._rejected += 1
        else:
            self._late += 1

    def _update(self) -> None:
        """New writes go straight into the database only while none waits before them; called with the lock held."""
        if self._closing or any(spool.count for spool in self._spools):
            self._idle.clear()
        else:
            self._idle.set()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
