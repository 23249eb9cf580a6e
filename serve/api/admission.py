"""Admission control: how many images a process works on at a time, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.problems import overloaded_error


class AdmissionControl:
    """Hands out admission slots, one for each image; there are as many as the model can score or queue.

    A request over the limit is rejected before its image is decoded, since decoding would take time from the others.
    """

    def __init__(self, slots: int, deadline_s: float) -> None:
        self._slots, self._deadline_s = asyncio.Semaphore(slots), deadline_s

    def check_slot(self) -> None:
        """Raises ApiError (503) if no slot is free; takes none."""
        if self._slots.locked():
            raise overloaded_error("all replicas are busy and the queue is full: try again")

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds a slot for the block. Raises ApiError (503) if none is free."""
        self.check_slot()
        async with self._slots:
            yield

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Limits the duration of the block. Raises ApiError (503) if it takes too long."""
        try:
            async with asyncio.timeout(self._deadline_s):
                yield
        except TimeoutError as error:
            raise overloaded_error(f"no response within {self._deadline_s:g} s: try again") from error
