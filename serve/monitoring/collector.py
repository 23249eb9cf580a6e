"""The watch over the endpoint: counts what the HTTP side tells, and holds what comes in against the training.

Plain Python, for any number of threads; `serve.deployments.monitor` puts it on Ray Serve.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from chestai.clock import now
from chestai.monitoring import features
from chestai.monitoring.drift import FEWEST, SIZE, DriftReference, DriftResult, DriftWindow, measure_drift
from serve.db.outbox import OutboxCounts
from serve.inference.predictor import MonitoredFeatures
from serve.monitoring.events import EventBatch, ImageEvent
from serve.monitoring.prometheus import PrometheusMetrics

log = logging.getLogger("ray.serve")

RETRY_S = 60.0  # between two looks for a reference while the registry does not answer
SILENT_S = 60.0  # after which a process that told nothing is taken for gone


@dataclass(frozen=True)
class VersionDrift:
    """How a version stands. reason: why the verdict is unknown. images: of the window. total: that ever came in."""

    version: int
    report: DriftResult
    reason: str | None
    images: int
    total: int
    reference_images: int | None
    since: datetime


@dataclass
class _Version:
    """What is known of a version; images wait for its reference. reference: None where it has none."""

    waiting: deque[MonitoredFeatures] = field(default_factory=lambda: deque(maxlen=SIZE))
    looked: bool = False
    retry_at: float = 0.0
    reference: DriftReference | None = None
    window: DriftWindow | None = None
    total: int = 0


@dataclass
class _Process:
    number: int
    heard_at: float
    state: OutboxCounts | None


class EventCollector:
    """Counts from the moment it is made: `since`."""

    def __init__(self, reference_of: Callable[[int], DriftReference | None]) -> None:
        """
        Args:
            reference_of: the drift reference of a version, None where it has none; may be slow, and may raise.
        """
        self.meters, self.since = PrometheusMetrics(), now()
        self._reference_of = reference_of
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._versions: dict[int, _Version] = {}
        self._processes: dict[str, _Process] = {}
        self._latest: int | None = None

    def tell(self, told: EventBatch) -> None:
        """Count what happened; what is told again counts once."""
        with self._lock:
            if not self._is_new(told):
                return
            for request in told.requests:
                self.meters.request(request)
            for image in told.images:
                self.meters.image(image)
                self._await(image)
            for shadow in told.shadows:
                self.meters.shadow(shadow)
            for outcome in told.canary:
                self.meters.canary(outcome)
            self.meters.untold(told.untold)
        self._settle()

    def alert(self, outcome: str) -> None:
        """Count an alert: see `Meters.alert`."""
        with self._lock:
            self.meters.alert(outcome)

    def metrics(self) -> bytes:
        """For `GET /metrics`."""
        drifts = self.drifts()
        with self._lock:
            for drift in drifts:
                self.meters.drift(drift.version, drift.report)
            self._forget_the_silent()
            self.meters.state(one.state for one in self._processes.values() if one.state is not None)
            return self.meters.exposed()

    def drifts(self) -> list[VersionDrift]:
        """Of all versions to which images came."""
        with self._lock:
            versions = list(self._versions)
        return [self.drift(version) for version in versions]

    def drift(self, version: int) -> VersionDrift:
        """The last images of a version against its training."""
        with self._lock:
            one = self._versions.setdefault(version, _Version())
        self._settle()
        with self._lock:
            reference, window, total, looked = one.reference, one.window, one.total, one.looked
        if reference is None or window is None:
            reason = "the version has no drift reference" if looked else "its drift reference could not be read yet"
            return VersionDrift(version, DriftResult((), "unknown"), reason, min(total, SIZE), total, None, self.since)
        found = measure_drift(reference, window.counts())
        few = f"fewer than {FEWEST} images on either side" if found.verdict == "unknown" else None
        learnt = max((sum(feature.counts) for feature in reference.features.values()), default=0)
        return VersionDrift(version, found, few, min(total, SIZE), total, learnt, self.since)

    def _is_new(self, told: EventBatch) -> bool:
        self._forget_the_silent()
        before = self._processes.get(told.process)
        if before is not None and told.number <= before.number:
            return False
        self._processes[told.process] = _Process(told.number, time.monotonic(), told.state)
        return True

    def _forget_the_silent(self) -> None:
        old = time.monotonic() - SILENT_S
        self._processes = {name: one for name, one in self._processes.items() if one.heard_at > old}

    def _await(self, image: ImageEvent) -> None:
        """An image that no version has seen, for it cannot be read say, counts where the last answer came from."""
        if image.reason is None and image.served is not None:
            self._latest = image.served.version
        version = self._latest if image.served is None else image.served.version
        if version is None:
            return
        outcome = features.SCORED if image.reason is None else features.NOT_SCORED
        one = self._versions.setdefault(version, _Version())
        one.waiting.append({**(image.observed or {}), features.OUTCOME: outcome})
        one.total += 1

    def _settle(self) -> None:
        """Look for the references that are missing, and count what waits for them."""
        if not self._looking.acquire(blocking=False):
            return  # one thread is enough to wait for a slow registry
        try:
            with self._lock:
                versions = dict(self._versions)
            for version, one in versions.items():
                self._look(version, one)
                with self._lock:
                    waiting = list(one.waiting) if one.looked else []
                    if one.looked:
                        one.waiting.clear()
                if one.window is not None:
                    _count(one.window, waiting)
        finally:
            self._looking.release()

    def _look(self, version: int, one: _Version) -> None:
        if one.looked or time.monotonic() < one.retry_at:
            return
        try:
            reference = self._reference_of(version)
        except Exception as error:
            log.warning("no drift reference of version %d for now (%s)", version, type(error).__name__)
            one.retry_at = time.monotonic() + RETRY_S
            return
        one.reference, one.looked = reference, True
        one.window = None if reference is None else DriftWindow(reference)


def _count(window: DriftWindow, images: Sequence[MonitoredFeatures]) -> None:
    """In their order; those that were refused have fewer features."""
    for names, group in groupby(images, key=_names):
        rows = list(group)
        window.add({name: [row[name] for row in rows] for name in names})


def _names(image: MonitoredFeatures) -> tuple[str, ...]:
    return tuple(image)
