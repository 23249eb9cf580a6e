"""The monitor's counts: events of all HTTP processes, and drift of the incoming images against the training data.

Plain Python for any number of threads; `serve.monitoring.monitor` runs it.
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
from chestai.monitoring.drift import MIN_IMAGES, SIZE, DriftReference, DriftResult, DriftWindow, measure_drift
from serve.db.outbox import OutboxCounts
from serve.inference.predictor import MonitoredFeatures
from serve.monitoring.events import EventBatch, ImageEvent
from serve.monitoring.prometheus import PrometheusMetrics

log = logging.getLogger("ray.serve")

RETRY_S = 60.0  # between attempts to load a drift reference while the registry is down
PROCESS_TIMEOUT_S = 60.0  # without a batch, after which a process counts as gone


@dataclass(frozen=True)
class VersionDrift:
    """Drift of a version's images.

    reason: why the verdict is unknown. images: in the window. total: since the counts started at `since`.
    reference_images: behind the drift reference; None without one.
    """

    version: int
    report: DriftResult
    reason: str | None
    images: int
    total: int
    reference_images: int | None
    since: datetime


@dataclass
class _Version:
    """pending: images that are not in the window yet. loaded: the registry answered, maybe without a reference."""

    pending: deque[MonitoredFeatures] = field(default_factory=lambda: deque(maxlen=SIZE))
    loaded: bool = False
    retry_at: float = 0.0
    reference: DriftReference | None = None
    window: DriftWindow | None = None
    total: int = 0


@dataclass
class _Process:
    number: int
    heard_at: float
    outbox: OutboxCounts | None


class EventCollector:
    """Counts events from its creation (`since`) on."""

    def __init__(self, load_reference: Callable[[int], DriftReference | None]) -> None:
        """
        Args:
            load_reference: Returns the drift reference of a version, None if it has none; may be slow, and may raise.
        """
        self.since = now()
        self._metrics, self._load_reference = PrometheusMetrics(), load_reference
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._versions: dict[int, _Version] = {}
        self._processes: dict[str, _Process] = {}
        self._latest: int | None = None

    def collect(self, batch: EventBatch) -> None:
        """Counts a batch; one that is sent again counts once."""
        with self._lock:
            if not self._is_new(batch):
                return
            for request in batch.requests:
                self._metrics.count_request(request)
            for image in batch.images:
                self._metrics.count_image(image)
                self._add_image(image)
            for comparison in batch.shadows:
                self._metrics.count_shadow(comparison)
            for outcome in batch.canary:
                self._metrics.count_canary(outcome)
            for source, reason in batch.drafts:
                self._metrics.count_draft(source, reason)
            self._metrics.count_dropped(batch.dropped)
        self._fill_windows()

    def count_alert(self, outcome: str) -> None:
        """Counts an alert; see `PrometheusMetrics.count_alert`."""
        with self._lock:
            self._metrics.count_alert(outcome)

    def metrics(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        drifts = self.drifts()
        with self._lock:
            for drift in drifts:
                self._metrics.set_drift(drift.version, drift.report)
            self._drop_silent_processes()
            self._metrics.set_outbox([one.outbox for one in self._processes.values() if one.outbox is not None])
            return self._metrics.render()

    def drifts(self) -> list[VersionDrift]:
        """Returns the drift of all versions that received images."""
        with self._lock:
            versions = list(self._versions)
        return [self.drift(version) for version in versions]

    def drift(self, version: int) -> VersionDrift:
        """Compares the latest images of a version with its training data."""
        with self._lock:
            state = self._versions.setdefault(version, _Version())
        self._fill_windows()
        with self._lock:
            reference, window, total, loaded = state.reference, state.window, state.total, state.loaded
        if reference is None or window is None:
            reason = "the version has no drift reference" if loaded else "its drift reference could not be read yet"
            return VersionDrift(version, DriftResult((), "unknown"), reason, min(total, SIZE), total, None, self.since)
        result = measure_drift(reference, window.counts())
        too_few = f"fewer than {MIN_IMAGES} images on either side" if result.verdict == "unknown" else None
        reference_images = max((sum(feature.counts) for feature in reference.features.values()), default=0)
        return VersionDrift(version, result, too_few, min(total, SIZE), total, reference_images, self.since)

    def _is_new(self, batch: EventBatch) -> bool:
        self._drop_silent_processes()
        last = self._processes.get(batch.process)
        if last is not None and batch.number <= last.number:
            return False
        self._processes[batch.process] = _Process(batch.number, time.monotonic(), batch.outbox)
        return True

    def _drop_silent_processes(self) -> None:
        oldest = time.monotonic() - PROCESS_TIMEOUT_S
        self._processes = {name: one for name, one in self._processes.items() if one.heard_at > oldest}

    def _add_image(self, image: ImageEvent) -> None:
        """Queues an image for its version's window; one that reached no version counts for the latest to score."""
        if image.reason is None and image.model is not None:
            self._latest = image.model.version
        version = self._latest if image.model is None else image.model.version
        if version is None:
            return
        outcome = features.SCORED if image.reason is None else features.NOT_SCORED
        state = self._versions.setdefault(version, _Version())
        state.pending.append({**(image.features or {}), features.OUTCOME: outcome})
        state.total += 1

    def _fill_windows(self) -> None:
        """Loads missing references, and moves pending images into the windows."""
        if not self._loading.acquire(blocking=False):
            return  # one thread is enough to wait for a slow registry
        try:
            with self._lock:
                versions = dict(self._versions)
            for version, state in versions.items():
                self._load(version, state)
                with self._lock:
                    pending = list(state.pending) if state.loaded else []
                    if state.loaded:
                        state.pending.clear()
                if state.window is not None:
                    _add_to_window(state.window, pending)
        finally:
            self._loading.release()

    def _load(self, version: int, state: _Version) -> None:
        if state.loaded or time.monotonic() < state.retry_at:
            return
        try:
            reference = self._load_reference(version)
        except Exception as error:
            log.warning("no drift reference of version %d for now (%s)", version, type(error).__name__)
            state.retry_at = time.monotonic() + RETRY_S
            return
        state.reference, state.loaded = reference, True
        state.window = None if reference is None else DriftWindow(reference)


def _add_to_window(window: DriftWindow, images: Sequence[MonitoredFeatures]) -> None:
    """Adds images in their order, grouped by their features: rejected images have fewer."""
    for names, group in groupby(images, key=tuple):
        rows = list(group)
        window.add({name: [row[name] for row in rows] for name in names})
