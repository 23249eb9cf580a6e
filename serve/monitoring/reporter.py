"""What happens in this process, gathered for the watch and told about once a second: no request waits for it."""

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
from serve.monitoring.events import EventBatch, ImageEvent, RequestEvent
from serve.problems import ApiError

log = logging.getLogger("ray.serve")

T = TypeVar("T")

EVERY_S = 1.0
LAST_S = 2.0  # for what is left at the end
MOST = 4096  # requests, and images, and so on, that wait while the watch is away


class EventReporter:
    """For one event loop at a time."""

    def __init__(self, watch: MonitorClient, counts: Callable[[], OutboxCounts]) -> None:
        """
        Args:
            counts: how the state of this process stands; may block.
        """
        self._watch, self._counts = watch, counts
        self._requests: deque[RequestEvent] = deque()
        self._images: deque[ImageEvent] = deque()
        self._shadows: deque[ShadowComparison] = deque()
        self._canary: deque[str] = deque()
        self._untold = self._number = 0
        self._process = f"{os.getpid()}-{uuid.uuid4()}"
        self._turn = asyncio.Lock()
        self._sending: EventBatch | None = None

    def request(self, asked: RequestEvent) -> None:
        """A request was answered."""
        self._append(self._requests, asked)

    def scored(self, scored: ScoreResult, decode_ms: float) -> None:
        """An image was scored."""
        self._append(self._images, ImageEvent.scored(scored, decode_ms / 1000))

    def refused(self, refused: ApiError) -> None:
        """An image was not, and why."""
        strange = refused.strange if isinstance(refused, OodError) else None
        self._append(self._images, ImageEvent.refused(refused.problem.code, strange))

    def shadow(self, compared: ShadowComparison) -> None:
        """An image was scored in the shadow, or not."""
        self._append(self._shadows, compared)

    def canary(self, outcome: str) -> None:
        """An image of the canary's share was `answered` or `missed` by it."""
        self._append(self._canary, outcome)

    async def flush(self) -> None:
        """Tell what happened up to now.

        Raises:
            Refused: the watch is away; it is told later.
        """
        async with self._turn:
            if self._sending is not None:  # again under its number: the watch may have heard it
                await self._watch.tell(self._sending)
            state = await asyncio.to_thread(self._counts)
            self._sending = EventBatch(
                self._process,
                self._number,
                requests=_taken(self._requests),
                images=_taken(self._images),
                shadows=_taken(self._shadows),
                canary=_taken(self._canary),
                untold=self._untold,
                state=state,
            )
            self._number, self._untold = self._number + 1, 0
            await self._watch.tell(self._sending)
            self._sending = None

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Tell it all the while, and what is left at the end."""
        telling = asyncio.create_task(self._tell())
        try:
            yield
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
            with suppress(Exception):  # the watch may have ended first
                async with asyncio.timeout(LAST_S):
                    await self.flush()

    async def _tell(self) -> None:
        away = False
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.flush()
                away = False
            except ApiError:
                if not away:
                    log.warning("the watch is away: what happens is told later")
                away = True
            except Exception:
                log.exception("the watch could not be told")
                self._sending = None  # it would fail again

    def _append(self, waiting: deque[T], one: T) -> None:
        if len(waiting) >= MOST:
            waiting.popleft()
            self._untold += 1
        waiting.append(one)


def _taken(waiting: deque[T]) -> tuple[T, ...]:
    taken = tuple(waiting)
    waiting.clear()
    return taken
