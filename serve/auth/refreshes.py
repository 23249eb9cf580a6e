"""Refreshes: what an open page asks again by itself. The audit has a row for each time span, not for each of them."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from chestai.clock import now

SPAN = timedelta(minutes=10)
MAX_VIEWS = 10_000  # that are remembered; further ones have a row each time


class RefreshLog:
    """Remembers which views of which readers have a row: it stands for their refreshes during the next `SPAN`.

    Only this process knows them. After a restart, and in each process of several, a view has one row more; none is
    missing. Its methods may be called from any thread.
    """

    def __init__(self, clock: Callable[[], datetime] = now) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._ends: dict[tuple[str, str], datetime] = {}  # by reader and view

    def is_recorded(self, reader: str, view: str) -> bool:
        """Returns whether a row stands for a refresh now."""
        with self._lock:
            end = self._ends.get((reader, view))
        return end is not None and self._clock() < end

    def note(self, reader: str, view: str) -> None:
        """Remembers that a row was written."""
        present = self._clock()
        with self._lock:
            self._ends = {key: end for key, end in self._ends.items() if present < end}
            if len(self._ends) < MAX_VIEWS:
                self._ends[reader, view] = present + SPAN

    @staticmethod
    def detail() -> dict[str, Any]:
        """Returns what a row says about itself."""
        return {"refresh": True, "minutes": SPAN.total_seconds() / 60}
