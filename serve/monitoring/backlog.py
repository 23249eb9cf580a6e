"""The metrics of what the gateway sends. It has no HTTP of its own, so the endpoint tells them from the database."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from serve.gateway.db.backlog import Backlog
from serve.gateway.db.deliveries import COMMITTED, DEAD, SENT, WAITING


def render_backlogs(backlogs: Sequence[Backlog]) -> bytes:
    """Returns Prometheus' text format, version 0.0.4; nothing without a destination."""
    if not backlogs:
        return b""
    registry = CollectorRegistry()
    deliveries = Gauge(
        "chestai_gateway_deliveries",
        "Results for a destination: waiting, sent, committed (the receiver keeps it), or given up (dead).",
        ["destination", "state"],
        registry=registry,
    )
    oldest = Gauge(
        "chestai_gateway_oldest_seconds",
        "Since the oldest result that waits was queued; 0 if none waits.",
        ["destination"],
        registry=registry,
    )
    for one in backlogs:
        oldest.labels(one.destination).set(one.oldest_s)
        for state in (WAITING, SENT, COMMITTED, DEAD):
            deliveries.labels(one.destination, state).set(one.counts.get(state, 0))
    return generate_latest(registry)
