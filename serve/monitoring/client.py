"""The interface of the monitor, which counts for the whole endpoint."""

from typing import Protocol

from serve.monitoring.collector import VersionDrift
from serve.monitoring.events import EventBatch


class MonitorClient(Protocol):
    """Access to the monitor. All methods raise ApiError while it is unavailable."""

    async def collect(self, batch: EventBatch) -> None:
        """Counts the events of an HTTP process."""

    async def metrics(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""

    async def drift(self, version: int) -> VersionDrift:
        """Compares the latest images of a version with its training data."""
