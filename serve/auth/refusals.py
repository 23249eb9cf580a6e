"""Refused requests: counted in memory and written to the audit once a minute, so that strangers cannot fill it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from chestai.clock import now
from serve.db.audit import AuditEvent

log = logging.getLogger("chestai.state")

INTERVAL_S = 60.0
MAX_COUNTERS = 1000  # of different refusals between two flushes; further ones count for `OTHERS`
OTHERS = "others"


@dataclass
class _Counter:
    count: int
    first_at: datetime
    last_at: datetime


class RefusalLog:
    """Counts refusals by actor, route and reason. Its methods may be called from any thread.

    A process that is killed loses the counts of its last minute.
    """

    def __init__(self, save: Callable[..., None]) -> None:
        """
        Args:
            save: Saves audit events, all or none; blocks.
        """
        self._save, self._lock = save, threading.Lock()
        self._counters: dict[tuple[str, str, str], _Counter] = {}

    def add(self, actor: str, route: str, reason: str) -> None:
        """Counts a refusal. reason: the code of the response."""
        with self._lock:
            if len(self._counters) >= MAX_COUNTERS and (actor, route, reason) not in self._counters:
                actor = OTHERS
            at = now()
            counter = self._counters.setdefault((actor, route, reason), _Counter(0, at, at))
            counter.count, counter.last_at = counter.count + 1, at

    def flush(self) -> None:
        """Saves an event for each kind of refusal since the last flush; if that fails, they stay counted and it raises.

        Raises:
            Exception: As `save`.
        """
        with self._lock:
            counters, self._counters = self._counters, {}
        events = [
            AuditEvent(actor=actor, action="refused", object=route, detail=_detail(reason, counter), at=counter.last_at)
            for (actor, route, reason), counter in counters.items()
        ]
        try:
            if events:
                self._save(*events)
        except Exception:
            self._restore(counters)
            raise

    @asynccontextmanager
    async def periodic_flush(self) -> AsyncIterator[None]:
        """Flushes once a minute during the block, and once more at its end."""
        task = asyncio.create_task(self._flush_forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._try_flush()

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await asyncio.to_thread(self.flush)
        except Exception as error:
            log.error("refused requests cannot be recorded now (%s)", type(error).__name__)

    def _restore(self, counters: dict[tuple[str, str, str], _Counter]) -> None:
        with self._lock:
            for key, counter in counters.items():
                newer = self._counters.get(key)
                self._counters[key] = counter
                if newer is not None:
                    counter.count, counter.last_at = counter.count + newer.count, newer.last_at


def _detail(reason: str, counter: _Counter) -> dict[str, str | int]:
    return {"reason": reason, "count": counter.count, "since": counter.first_at.isoformat()}
