"""The monitor: it counts for the whole endpoint, and sends alerts. Needs no Ray."""

import asyncio
import logging
import threading

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from serve.monitoring.alerts import Alerts
from serve.monitoring.collector import EventCollector, VersionDrift
from serve.monitoring.events import EventBatch

log = logging.getLogger("ray.serve")

CHECK_INTERVAL_S = 60.0  # between two checks for drift; less if alerts may follow each other faster


class Monitor:
    """Collects events: a deployment of Ray Serve, or part of an endpoint on one machine; a `MonitorClient`.

    A restart loses the counts, so its responses say since when it has counted.
    """

    def __init__(self, config: Config) -> None:
        self.collector = EventCollector(Registry(config.tracking, Lake(config.lake)).drift)
        self.alerts = Alerts(config.serve.alert, self.collector.count_alert)
        self.interval_s = min(CHECK_INTERVAL_S, config.serve.alert.minutes * 60)
        threading.Thread(target=self._check_forever, daemon=True).start()

    async def collect(self, batch: EventBatch) -> None:
        """Counts the events of an HTTP process."""
        await asyncio.to_thread(self.collector.collect, batch)

    async def metrics(self) -> bytes:
        """Returns the body of `GET /metrics`."""
        return await asyncio.to_thread(self.collector.metrics)

    async def drift(self, version: int) -> VersionDrift:
        """Returns the drift for `GET /drift_report`."""
        return await asyncio.to_thread(self.collector.drift, version)

    def _check_forever(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.interval_s):
            try:
                self.alerts.check(self.collector.drifts())
            except Exception:
                log.exception("drift could not be checked")
