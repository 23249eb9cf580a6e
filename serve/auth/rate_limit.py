"""Rate limits: a token bucket for each client, in this process.

Each HTTP process counts on its own, so several together let through that many times more.
"""

import ipaddress
import math
import threading
import time
from collections.abc import Callable

MAX_BUCKETS = 10_000  # beyond that the bucket unused for the longest time is dropped; its client gets a full one


class RateLimiter:
    """Token buckets by name. Its methods may be called from any thread."""

    def __init__(self, per_minute: int | None, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            per_minute: Tokens added to a bucket per minute; None for no limit.
            burst: Capacity of a bucket: the number of requests that may come at once.
            clock: Returns seconds.
        """
        self._per_second = None if per_minute is None else per_minute / 60
        self._burst, self._clock, self._lock = burst, clock, threading.Lock()
        self._full_at: dict[str, float] = {}  # when each bucket will be full again, least recently used first

    def acquire(self, name: str) -> int:
        """Takes a token; returns 0, or the whole seconds until there is one, in which case it takes none."""
        if self._per_second is None:
            return 0
        with self._lock:
            present = self._clock()
            self._drop_buckets(present)
            full_at = max(self._full_at.pop(name, present), present)
            missing = (full_at - present) * self._per_second
            limited = missing + 1 > self._burst + 1e-9
            self._full_at[name] = full_at if limited else full_at + 1 / self._per_second
            return max(1, math.ceil((missing + 1 - self._burst) / self._per_second)) if limited else 0

    def refund(self, name: str) -> None:
        """Gives back a token."""
        with self._lock:
            if self._per_second is not None and name in self._full_at:
                self._full_at[name] -= 1 / self._per_second

    def __len__(self) -> int:
        """Returns the number of buckets in memory."""
        return len(self._full_at)

    def _drop_buckets(self, present: float) -> None:
        """Drops full buckets at the front, which equal new ones, and those over the limit."""
        while self._full_at:
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > present and len(self._full_at) < MAX_BUCKETS:
                return
            del self._full_at[oldest]


def client_network(address: str) -> str:
    """Returns the address, or the /64 network for IPv6, since every customer owns a whole one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
