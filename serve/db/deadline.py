"""Deadlines of transactions. A server that hangs accepts connections, takes statements, and never answers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

SLOW_S = 1.0  # a transaction that failed after more than that shows a server that hangs or cannot be reached
RETRY_S = 2.0

_DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)  # on `time.monotonic`


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection that is closed when a statement still waits at the deadline of its transaction."""

    def wait(self, *args: Any, **options: Any) -> Any:
        """
        Raises:
            OperationalError: The deadline has passed.
        """
        deadline = _DEADLINE.get()
        if deadline is None:
            return super().wait(*args, **options)
        try:
            return super().wait(*args, **{**options, "timeout": max(0.0, deadline - time.monotonic())})
        except psycopg.OperationalError:
            if time.monotonic() >= deadline:
                self.close()  # the answer may still come, to a statement that nobody waits for
            raise


class DeadlineGuard:
    """Gives each transaction a deadline. While the server hangs, one transaction at a time tries whether it is back."""

    def __init__(self) -> None:
        self._retry_at: float | None = None  # while the server hangs
        self._trying = threading.Lock()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Sets the deadline of the block.

        Raises:
            TimeoutError: SQLAlchemy's: the server hangs, and it is another transaction's turn to try it.
        """
        if (retry_at := self._retry_at) is None:
            with self._watch(seconds):
                yield
        elif time.monotonic() >= retry_at and self._trying.acquire(blocking=False):
            try:
                with self._watch(seconds):
                    yield
            finally:
                self._trying.release()
        else:
            raise PoolTimeout("the database does not respond")

    @contextmanager
    def _watch(self, seconds: float) -> Iterator[None]:
        started = time.monotonic()
        token = _DEADLINE.set(started + seconds)
        try:
            yield
            self._retry_at = None
        except (DBAPIError, PoolTimeout):
            ended = time.monotonic()
            self._retry_at = ended + RETRY_S if ended - started > SLOW_S else None
            raise
        finally:
            _DEADLINE.reset(token)


def check_deadline() -> None:
    """
    Raises:
        OperationalError: The deadline of the transaction has passed, so connecting again would take too long.
    """
    deadline = _DEADLINE.get()
    if deadline is not None and time.monotonic() >= deadline:
        raise psycopg.OperationalError("the database does not respond")
