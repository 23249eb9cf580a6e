"""How many requests somebody may send: a token bucket for each, in this process.

Several HTTP processes count each for themselves, so that together they let through as many times more.
"""

import ipaddress
import math
import threading
import time
from collections.abc import Callable

MOST = 10_000  # of whom are known at a time; whoever came longest ago is forgotten, and starts with a full bucket


class RateLimiter:
    """Buckets by name. Its methods may be called from any thread."""

    def __init__(self, per_minute: int | None, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            per_minute: by how many requests a bucket is filled; None: there is no limit.
            burst: what a full bucket holds: so many requests may come at once.
            clock: in seconds.
        """
        self._per_second = None if per_minute is None else per_minute / 60
        self._burst, self._clock, self._lock = burst, clock, threading.Lock()
        self._full_at: dict[str, float] = {}  # when a bucket will be full again, who came last comes last

    def wait_s(self, name: str) -> int:
        """Take a request out of a bucket; 0: it may pass, else the whole seconds until one may, and none is taken."""
        if self._per_second is None:
            return 0
        with self._lock:
            present = self._clock()
            self._forget(present)
            full_at = max(self._full_at.pop(name, present), present)
            missing = (full_at - present) * self._per_second
            waits = missing + 1 > self._burst + 1e-9
            self._full_at[name] = full_at if waits else full_at + 1 / self._per_second
            return max(1, math.ceil((missing + 1 - self._burst) / self._per_second)) if waits else 0

    def known(self) -> int:
        """How many buckets are remembered."""
        return len(self._full_at)

    def _forget(self, present: float) -> None:
        """Drop those at the front that are full again, for so is a new one, and those that are too many."""
        while self._full_at:
            first = next(iter(self._full_at))
            if self._full_at[first] > present and len(self._full_at) < MOST:
                return
            del self._full_at[first]


def client_network(address: str) -> str:
    """Whose an address is: of IPv6 the network /64, for every customer has one of them whole."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
