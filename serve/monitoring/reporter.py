"""Gathers the events of this process and sends them to the monitor about once a second; no request waits for it."""

import asyncio
import logging
import os
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from serve.db.outbox import OutboxCounts
from serve.inference.predictor import OodError, ScoreResult
from serve.inference.rollout import ShadowComparison
from serve.monitoring.client import MonitorClient
from serve.monitoring.events import DraftOutcome, EventBatch, ImageEvent, RequestEvent
from serve.problems import ApiError

log = logging.getLogger("ray.serve")

T = TypeVar("T")

FLUSH_INTERVAL_S = 1.0
LAST_FLUSH_S = 2.0  # time for the last flush at shutdown
MAX_QUEUED_EVENTS = 4096  # of each kind, while the monitor is unavailable


class EventReporter:
    """Queues events and sends them in batches. For one event loop at a time."""

    def __init__(self, monitor: MonitorClient, outbox_counts: Callable[[], OutboxCounts]) -> None:
        """
        Args:
            outbox_counts: May block.
        """
        self._monitor, self._outbox_counts = monitor, outbox_counts
        self._requests: deque[RequestEvent] = deque()
        self._images: deque[ImageEvent] = deque()
        self._shadows: deque[ShadowComparison] = deque()
        self._canary: deque[str] = deque()
        self._drafts: deque[DraftOutcome] = deque()
        self._dropped = self._number = 0
        self._process = f"{os.getpid()}-{uuid.uuid4()}"
        self._lock = asyncio.Lock()
        self._unconfirmed: EventBatch | None = None

    def record_request(self, event: RequestEvent) -> None:
        """Records a request that was answered."""
        self._append(self._requests, event)

    def record_scored(self, result: ScoreResult, decode_ms: float) -> None:
        """Records an image that was scored."""
        self._append(self._images, ImageEvent.scored(result, decode_ms / 1000))

    def record_not_scored(self, error: ApiError) -> None:
        """Records an image that was not scored, and why."""
        rejection = error.rejection if isinstance(error, OodError) else None
        self._append(self._images, ImageEvent.not_scored(error.problem.code, rejection))

    def record_shadow(self, comparison: ShadowComparison) -> None:
        """Records the shadow's result for an image."""
        self._append(self._shadows, comparison)

    def record_canary(self, outcome: str) -> None:
        """Records whether an image of the canary's share was `answered` or `missed` by it."""
        self._append(self._canary, outcome)

    def record_draft(self, source: str, reason: str | None) -> None:
        """Records a draft of a report, and why it is not the language model's."""
        self._append(self._drafts, (source, reason or ""))

    async def flush(self) -> None:
        """Sends all events recorded so far.

        Raises:
            ApiError: The monitor is unavailable; they are sent later.
        """
        async with self._lock:
            if self._unconfirmed is not None:  # again under its number, since the monitor may have counted it
                await self._monitor.collect(self._unconfirmed)
            outbox = await asyncio.to_thread(self._outbox_counts)
            self._unconfirmed = EventBatch(
                self._process,
                self._number,
                requests=_pop_all(self._requests),
                images=_pop_all(self._images),
                shadows=_pop_all(self._shadows),
                canary=_pop_all(self._canary),
                drafts=_pop_all(self._drafts),
                dropped=self._dropped,
                outbox=outbox,
            )
            self._number, self._dropped = self._number + 1, 0
            await self._monitor.collect(self._unconfirmed)
            self._unconfirmed = None

    @asynccontextmanager
    async def periodic_flush(self) -> AsyncIterator[None]:
        """Flushes regularly during the block, and once more at its end."""
        task = asyncio.create_task(self._flush_forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            with suppress(Exception):  # the monitor may have ended first
                async with asyncio.timeout(LAST_FLUSH_S):
                    await self.flush()

    async def _flush_forever(self) -> None:
        unavailable = False
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            try:
                await self.flush()
                unavailable = False
            except ApiError:
                if not unavailable:
                    log.warning("the monitor is unavailable: events are sent later")
                unavailable = True
            except Exception:
                log.exception("events could not be sent to the monitor")
                self._unconfirmed = None  # it would fail again

    def _append(self, queue: deque[T], event: T) -> None:
        if len(queue) >= MAX_QUEUED_EVENTS:
            queue.popleft()
            self._dropped += 1
        queue.append(event)


def _pop_all(queue: deque[T]) -> tuple[T, ...]:
    events = tuple(queue)
    queue.clear()
    return events
