"""TODO"""

from typing import Protocol

from serve.monitoring.collector import Drift
from serve.monitoring.events import Told


class Watcher(Protocol):
    """What counts for the whole endpoint. All raise `Refused` where it is away."""

    async def tell(self, told: Told) -> None:
        """Count what happened in a process of the HTTP side."""
        ...

    async def metrics(self) -> bytes:
        """All counts, in Prometheus' text format."""
        ...

    async def drift(self, version: int) -> Drift:
        """The last images of a version against its training."""
        ...
