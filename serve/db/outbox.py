"""The outbox: writes go to the database, or to a local file while the database is down, from where they are replayed.

When `submit` returns, the write is on disk in one of the two. A thread replays pending writes in order as soon as the
database is back; the file of a process that died is taken over by the next one. Every write has its own key
(`serve.db.records`, `serve.db.audit`), so a write whose commit was not confirmed can be repeated and counts once.
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

from chestai.clock import now
from serve.db.database import is_unavailable
from serve.db.spool import Spool

log = logging.getLogger("chestai.state")

Write = tuple[str, Sequence[Any]]  # its kind, and its content as JSON values
Apply = Callable[[Sequence[Write]], None]

REJECTED = "rejected"  # how the names of files with rejected writes begin
RETRY_S = 1.0
SCAN_S = 30.0  # between scans for files of processes that died meanwhile
CATCH_UP_S = 0.1  # delays each submission while pending writes are replayed; otherwise the replay might never end
PERMANENT_ERRORS = (IntegrityError, DataError, ValueError, TypeError, LookupError)  # a retry would fail too


class OutboxFull(RuntimeError):
    """The database is down and the outbox has reached its size limit."""


@dataclass(frozen=True)
class OutboxCounts:
    """Submissions since the start, for gauges; `pending` and `pending_bytes` are current values.

    direct: written to the database at once. spooled: written to the file first. replayed: written to the database
    later, including those of dead processes. rejected: refused as wrong during replay; kept in a file of the day.
    """

    direct: int
    spooled: int
    replayed: int
    rejected: int
    pending: int
    pending_bytes: int


class Outbox:
    """Accepts writes from any thread."""

    def __init__(self, apply: Apply, folder: Path, limit_mb: int, retry_s: float = RETRY_S) -> None:
        """Takes over the files of dead processes and starts the thread.

        Args:
            apply: Performs the writes of a submission in one transaction; repeating it changes nothing.
            folder: Local, shared with other processes of the endpoint.
            limit_mb: Size limit of this process's file.
            retry_s: Pause between attempts while the database is down.

        Raises:
            OSError: The folder is not writable.
        """
        self._apply, self._folder, self._limit, self._retry_s = apply, folder, limit_mb * 2**20, retry_s
        self._lock = threading.Lock()
        self._wake, self._retry_now, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._closing = self._catching_up = False
        self._direct = self._spooled = self._replayed = self._rejected = 0
        self._own = Spool.create(folder)
        self._spools = [self._own]
        self._take_over()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def submit(self, writes: Sequence[Write], share: float = 1.0) -> None:
        """Performs all writes or none; they are on disk when this returns.

        Args:
            share: Of the size limit, which these writes may use; the rest is kept for others.

        Raises:
            OutboxFull: The database is down and the file, or the share, is full.
            OSError: The database is down and the file cannot be written.
            Exception: Whatever `apply` raises for a wrong write.
        """
        line = json.dumps(list(writes), separators=(",", ":"), allow_nan=False).encode()
        if self._idle.is_set():
            try:
                self._apply(writes)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.warning("the database is down: writes go to %s (%s)", self._own.path, type(error).__name__)
            else:
                with self._lock:
                    self._direct += 1
                return
        with self._lock:
            if self._closing:
                raise RuntimeError("the outbox is closed")
            if self._own.size + len(line) >= self._limit * share:
                limit = f"state.backlog_mb={self._limit // 2**20}"
                raise OutboxFull(f"the database is down, and {self._own.path} has reached its limit ({limit})")
            self._own.append(line)
            self._spooled += 1
            self._update_idle()
        self._wake.set()
        if self._catching_up:
            self._idle.wait(CATCH_UP_S)

    def flush(self, timeout_s: float) -> bool:
        """Replays pending writes now; returns whether none is left."""
        self._retry_now.set()
        self._wake.set()
        return self._idle.wait(timeout_s)

    def counts(self) -> OutboxCounts:
        """Returns the current counts."""
        with self._lock:
            return OutboxCounts(
                direct=self._direct,
                spooled=self._spooled,
                replayed=self._replayed,
                rejected=self._rejected,
                pending=sum(spool.count for spool in self._spools),
                pending_bytes=sum(spool.size - spool.offset for spool in self._spools),
            )

    def close(self) -> None:
        """Stops the thread; pending writes stay on disk for the next process."""
        with self._lock:
            self._closing = True
            self._idle.clear()
        self._retry_now.set()
        self._wake.set()
        self._thread.join()
        for spool in self._spools:
            spool.close()

    def _run(self) -> None:
        while not self._closing:
            self._retry_now.clear()
            try:
                self._drain()
            except Exception as error:
                self._catching_up = False
                if not is_unavailable(error):
                    log.error("pending writes cannot be replayed (%s)", type(error).__name__)
                self._retry_now.wait(self._retry_s)
            else:
                self._wake.wait(SCAN_S)
                self._wake.clear()

    def _drain(self) -> None:
        """Replays all pending writes. Raises what `apply` raises while the database is down."""
        self._take_over()
        while not self._closing:
            with self._lock:
                spool = next((spool for spool in self._spools if spool.count), None)
                line = None if spool is None else spool.peek()
            if spool is None or line is None:
                break
            self._replay(line)
            self._catching_up = True
            with self._lock:
                spool.pop(line)
                self._update_idle()
        self._catching_up = False
        with self._lock:
            for spool in [spool for spool in self._spools if spool is not self._own and not spool.count]:
                self._spools.remove(spool)
                spool.close()

    def _take_over(self) -> None:
        with self._lock:
            self._spools[:0] = Spool.take_over(self._folder)  # in front: older writes are replayed first
            self._update_idle()

    def _replay(self, line: bytes) -> None:
        try:
            self._apply([(str(kind), content) for kind, content in json.loads(line)])
        except PERMANENT_ERRORS as error:
            rejected = self._folder / f"{REJECTED}-{now():%Y-%m-%d}"
            log.error("a pending write is wrong; it is kept in %s (%s)", rejected, type(error).__name__)
            with open(rejected, "ab", opener=_open_private) as file:
                file.write(line + b"\n")
            self._rejected += 1
        else:
            self._replayed += 1

    def _update_idle(self) -> None:
        """Lets new writes go straight to the database only if none is pending; the caller holds the lock."""
        if self._closing or any(spool.count for spool in self._spools):
            self._idle.clear()
        else:
            self._idle.set()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
