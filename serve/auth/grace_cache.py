"""Credentials that the database confirmed lately, to be accepted while it is down."""

import threading
from datetime import datetime, timedelta
from typing import Generic, TypeVar

T = TypeVar("T")

GRACE_PERIOD = timedelta(hours=1)  # for which a confirmed credential stays usable, so that inference goes on
MAX_ENTRIES = 10_000


class GraceCache(Generic[T]):
    """What the database said about valid credentials, by name, and when. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[T, datetime]] = {}  # least recently confirmed first

    def confirm(self, name: str, value: T | None, at: datetime) -> None:
        """Stores what the database said at a time; None forgets the credential, which is not valid."""
        with self._lock:
            self._entries.pop(name, None)
            if value is not None:
                self._entries[name] = (value, at)
                while len(self._entries) > MAX_ENTRIES:
                    del self._entries[next(iter(self._entries))]

    def find(self, name: str, at: datetime) -> T | None:
        """Returns what was stored, unless the database confirmed it too long before the time."""
        with self._lock:
            entry = self._entries.get(name)
        return entry[0] if entry is not None and at - entry[1] <= GRACE_PERIOD else None

    def replace(self, name: str, value: T) -> None:
        """Changes what was stored, if it still is; the database has not confirmed it again."""
        with self._lock:
            if name in self._entries:
                self._entries[name] = (value, self._entries[name][1])
