"""The watch deployment: one small actor that counts for the whole endpoint, and raises alerts."""

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

CHECK_S = 60.0  # between two looks for drift; less where alerts may follow each other sooner


class MonitorDeployment:
    """Loses what it counted when it is restarted; its answers say since when it counts."""

    def __init__(self, config: Config) -> None:
        self.watching = EventCollector(Registry(config.tracking, Lake(config.lake)).drift)
        self.alerts = Alerts(config.serve.alert, self.watching.count_alert)
        self.pause_s = min(CHECK_S, config.serve.alert.minutes * 60)
        threading.Thread(target=self._check, daemon=True).start()

    async def collect(self, batch: EventBatch) -> None:
        """Count what happened in a process of the HTTP side."""
        await asyncio.to_thread(self.watching.collect, batch)

    async def metrics(self) -> bytes:
        """For `GET /metrics`."""
        return await asyncio.to_thread(self.watching.metrics)

    async def drift(self, version: int) -> VersionDrift:
        """For `GET /drift_report`."""
        return await asyncio.to_thread(self.watching.drift, version)

    def _check(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.pause_s):
            try:
                self.alerts.check(self.watching.drifts())
            except Exception:
                log.exception("drift could not be checked")
