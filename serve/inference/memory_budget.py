"""The memory that the requests of one process may hold together: bodies, decoded images and responses."""

import threading

from serve.problems import overloaded_error


class MemoryBudget:
    """Counts bytes. Its methods may be called from any thread."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: Bytes.
        """
        self.limit, self.used, self._lock = limit, 0, threading.Lock()

    def reserve(self, size: int) -> None:
        """Takes bytes. Raises ApiError (503) if there are not that many left."""
        with self._lock:
            if self.used + size > self.limit:
                raise overloaded_error("other requests hold all memory that requests may have: try again")
            self.used += size

    def release(self, size: int) -> None:
        """Gives bytes back."""
        with self._lock:
            self.used -= size


class MemoryAccount:
    """What one request has reserved; all of it is released together. Its methods may be called from any thread."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget, self._lock = budget, threading.Lock()
        self._size, self._closed = 0, False

    def reserve(self, size: int) -> None:
        """Takes bytes until the request ends. Raises ApiError (503) if there are not that many left."""
        with self._lock:
            if self._closed:  # a thread works on for a request that ended
                raise overloaded_error("the request has ended")
            self._budget.reserve(size)
            self._size += size

    def close(self) -> None:
        """Gives everything back."""
        with self._lock:
            self._closed = True
            self._budget.release(self._size)
            self._size = 0
