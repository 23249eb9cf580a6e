"""TODO"""

from typing import Protocol

from serve.monitoring.collector import VersionDrift
from serve.monitoring.events import EventBatch


class MonitorClient(Protocol):
    """What counts for the whole endpoint. All raise `Refused` where it is away."""

    async def tell(self, told: EventBatch) -> None:
        """Count what happened in a process of the HTTP side."""
        ...

    async def metrics(self) -> bytes:
        """All counts, in Prometheus' text format."""
        ...

    async def drift(self, version: int) -> VersionDrift:
        """The last images of a version against its training."""
        ...
