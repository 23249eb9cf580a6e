"""The reporter: every request and image reaches the monitor, late if the monitor was unavailable."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message

from serve.api.services import Services
from serve.db.outbox import OutboxCounts
from serve.monitoring import reporter
from serve.monitoring.collector import EventCollector, VersionDrift
from serve.monitoring.events import EventBatch, RequestEvent
from serve.monitoring.reporter import EventReporter
from serve.problems import ApiError
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import LocalMonitor, encode_form, local_app, send_request
from tests.serve.support.monitoring import parse_metrics

OUTBOX = OutboxCounts(0, 0, 0, 0, 0, 0)
FILM = encode_image(make_films()[0])


class FakeMonitor:
    """A monitor that can be unavailable, before or after it received a batch."""

    def __init__(self) -> None:
        self.unavailable, self.receives, self.received = False, False, list[EventBatch]()

    async def collect(self, batch: EventBatch) -> None:
        if not self.unavailable or self.receives:
            self.received.append(batch)
        if self.unavailable:
            raise ApiError(503, "watch_unavailable", "down")

    async def metrics(self) -> bytes:
        raise ApiError(503, "watch_unavailable", "down")

    async def drift(self, version: int) -> VersionDrift:
        raise ApiError(503, "watch_unavailable", "down")


def request(number: int) -> RequestEvent:
    return RequestEvent(f"/{number}", "2xx", 0.1)


def flush(events: EventReporter) -> bool:
    try:
        asyncio.run(events.flush())
    except ApiError:
        return False
    return True


@pytest.mark.parametrize("receives", [True, False])
def test_sends_events_in_order_after_the_monitor_was_unavailable(receives: bool) -> None:
    monitor = FakeMonitor()
    events = EventReporter(monitor, lambda: OUTBOX)
    monitor.unavailable, monitor.receives = True, receives
    for number in range(3):
        events.record_request(request(number))
        assert not flush(events)
    monitor.unavailable = False
    events.record_request(request(3))
    assert flush(events)
    counted = {batch.number: batch.requests for batch in monitor.received}  # by number, as the collector counts
    assert [one for requests in counted.values() for one in requests] == [request(number) for number in range(4)]
    assert len({batch.process for batch in monitor.received}) == 1


def test_drops_the_oldest_events_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "MAX_QUEUED_EVENTS", 5)
    monitor = FakeMonitor()
    events = EventReporter(monitor, lambda: OUTBOX)
    for number in range(12):
        events.record_request(request(number))
        events.record_not_scored(ApiError(422, "truncated", "cut"))
    assert flush(events)
    (batch,) = monitor.received
    assert [one.route for one in batch.requests] == [f"/{number}" for number in range(7, 12)]
    assert len(batch.images) == 5 and batch.dropped == 14 and batch.outbox == OUTBOX


def test_flushes_periodically_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "FLUSH_INTERVAL_S", 0.01)
    monitor = FakeMonitor()
    events = EventReporter(monitor, lambda: OUTBOX)

    async def record_while_flushing() -> None:
        async with events.periodic_flush():
            events.record_request(request(1))
            async with asyncio.timeout(30):
                while not any(batch.requests for batch in monitor.received):
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(reporter, "FLUSH_INTERVAL_S", 3600.0)
            async with asyncio.timeout(30):
                before = len(monitor.received)
                while len(monitor.received) == before and before < 2:
                    await asyncio.sleep(0.01)
            events.record_request(request(2))

    asyncio.run(record_while_flushing())
    assert [one for batch in monitor.received for one in batch.requests] == [request(1), request(2)]


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, True, "serve.max_upload_mb=1")


def recorded_requests(app: FastAPI) -> Counter[tuple[str, str]]:
    services: Services = app.state.services
    return Counter((one.route, one.status) for one in services.reporter._requests)


def test_records_every_request_by_its_route_pattern(app: FastAPI) -> None:
    send_request(app, "/infer", [FILM])
    send_request(app, "/infer", [b""])
    send_request(app, "/infer", [FILM[:100]], leaves=True)
    send_request(app, "/infer", method="GET")
    send_request(app, "/images/" + "0" * 64, method="GET")
    send_request(app, "/images/stored/heatmap?label=Mass", method="GET")
    send_request(app, "/nowhere/at/all", method="GET")
    send_request(app, "/nowhere/else", method="BREW")
    services: Services = app.state.services
    services.model.scorer.score = None  # type: ignore[assignment, method-assign]
    assert send_request(app, "/infer", [FILM]).status == 500
    assert recorded_requests(app) == {
        ("/infer", "2xx"): 1,
        ("/infer", "4xx"): 3,
        ("/infer", "5xx"): 1,
        ("/images/{image_id}", "4xx"): 1,
        ("/images/{image_id}/heatmap", "4xx"): 1,
        ("none", "4xx"): 2,
    }


def test_middleware_streams_requests(app: FastAPI) -> None:
    """The request is rejected at its second piece; the third is never read."""
    pieces, statuses = [b"x" * 700_000] * 3, list[int]()

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/infer", "raw_path": b"/infer"}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "headers": [], "server": ("a", 1)}
    asyncio.run(app(scope, receive, send))
    assert statuses[0] == 413 and len(pieces) == 1


def test_metrics_and_drift_report_include_all_earlier_requests(app: FastAPI) -> None:
    negative = encode_image(255 - make_films()[0])
    files = [("file", "a.png", "image/png", FILM), ("file", "b.png", "image/png", FILM)]
    for data in (FILM, FILM, FILM[:-40], negative):
        send_request(app, "/predict", [data])
    body, headers = encode_form(*files)
    send_request(app, "/predict", [body], headers)
    reply = send_request(app, "/metrics", method="GET")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = parse_metrics(reply.body)
    expected = {
        ("chestai_requests_total", "/predict", "2xx"): 2,
        ("chestai_requests_total", "/predict", "4xx"): 3,
        ("chestai_images_total", "scored", ""): 2,
        ("chestai_images_total", "not_scored", "truncated"): 1,
        ("chestai_images_total", "not_scored", "out_of_distribution"): 1,
        ("chestai_decode_seconds_count",): 2,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert sum(value for name, value in found.items() if name[0] == "chestai_answers_total") == 2
    report = send_request(app, "/drift_report", method="GET").json()
    assert report["verdict"] == "unknown" and "no drift reference" in report["reason"] and report["notice"]
    assert report["window"]["images"] == 4 and report["model"]["version"] == 1


def test_requests_work_without_a_monitor(tmp_path: Path) -> None:
    app = local_app(tmp_path)
    services: Services = app.state.services
    monitor = FakeMonitor()
    monitor.unavailable = True
    services.reporter._monitor = monitor
    with TestClient(app) as client:
        assert client.post("/infer", content=FILM, headers={"content-type": "image/png"}).status_code == 200
        for path in ("/metrics", "/drift_report"):
            response = client.get(path)
            assert response.status_code == 503 and response.json()["code"] == "watch_unavailable"
            assert response.headers["retry-after"]
        services.reporter._monitor = LocalMonitor(EventCollector(lambda _: None))
        assert client.get("/drift_report").json()["window"]["images"] == 0, "the events go to the new monitor"
