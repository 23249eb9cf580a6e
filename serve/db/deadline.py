"""Deadlines of statements. A server that hangs accepts connections, takes statements, and never answers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

SLOW_S = 1.0  # a transaction that failed after more than that shows a server that hangs or cannot be reached
RETRY_S = 2.0


@dataclass
class _Patience:
    """Seconds to wait for a statement of the current transaction, and whether one took longer."""

    seconds: float
    has_ended: bool = False


_PATIENCE: ContextVar[_Patience | None] = ContextVar("patience", default=None)


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection that is closed when a statement has no answer at its deadline."""

    def wait(self, *args: Any, **options: Any) -> Any:
        """
        Raises:
            OperationalError: The deadline has passed.
        """
        patience, started = _PATIENCE.get(), time.monotonic()
        if patience is None:
            return super().wait(*args, **options)
        try:
            return super().wait(*args, **{**options, "timeout": patience.seconds})
        except psycopg.OperationalError:
            if time.monotonic() - started >= patience.seconds:
                patience.has_ended = True
                self.close()  # the answer may still come, to a statement that nobody waits for
            raise


class DeadlineGuard:
    """Gives statements a deadline. While the server hangs, one transaction at a time tries whether it is back."""

    def __init__(self) -> None:
        self._retry_at: float | None = None  # while the server hangs
        self._trying = threading.Lock()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Limits each statement of the transaction in the block.

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
        token = _PATIENCE.set(_Patience(seconds))
        try:
            yield
            self._retry_at = None
        except (OperationalError, PoolTimeout):
            ended = time.monotonic()
            self._retry_at = ended + RETRY_S if ended - started > SLOW_S else None
            raise
        finally:
            _PATIENCE.reset(token)


def check_patience() -> None:
    """
    Raises:
        OperationalError: The transaction has waited for a statement in vain, so connecting again would take too long.
    """
    patience = _PATIENCE.get()
    if patience is not None and patience.has_ended:
        raise psycopg.OperationalError("the database does not respond")
