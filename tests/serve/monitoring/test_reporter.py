"""What a process of the HTTP side notices and tells: every request and image, late where the watch is away."""

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
from tests.serve.support.forgery import encoded, films
from tests.serve.support.local import LocalWatch, ask, form, local_app
from tests.serve.support.prometheus import parsed

STATE = OutboxCounts(0, 0, 0, 0, 0, 0)
FILM = encoded(films()[0])


class Away:
    """A watch that can be away, and may lose its answer after it heard."""

    def __init__(self) -> None:
        self.away, self.deaf, self.heard = False, True, list[EventBatch]()

    async def tell(self, told: EventBatch) -> None:
        if not (self.away and self.deaf):
            self.heard.append(told)
        if self.away:
            raise ApiError(503, "watch_unavailable", "away")

    async def metrics(self) -> bytes:
        raise ApiError(503, "watch_unavailable", "away")

    async def drift(self, version: int) -> VersionDrift:
        raise ApiError(503, "watch_unavailable", "away")


def asked(number: int) -> RequestEvent:
    return RequestEvent(f"/{number}", "2xx", 0.1)


def flushed(notices: EventReporter) -> bool:
    try:
        asyncio.run(notices.flush())
    except ApiError:
        return False
    return True


@pytest.mark.parametrize("deaf", [True, False])
def test_what_a_watch_that_was_away_missed_is_told_later_in_order(deaf: bool) -> None:
    watch = Away()
    notices = EventReporter(watch, lambda: STATE)
    watch.away, watch.deaf = True, deaf
    for number in range(3):
        notices.request(asked(number))
        assert not flushed(notices)
    watch.away = False
    notices.request(asked(3))
    assert flushed(notices)
    counted = {told.number: told.requests for told in watch.heard}  # as the watch does
    assert [one for requests in counted.values() for one in requests] == [asked(number) for number in range(4)]
    assert len({told.process for told in watch.heard}) == 1


def test_too_much_is_counted_and_the_newest_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "MOST", 5)
    watch = Away()
    notices = EventReporter(watch, lambda: STATE)
    for number in range(12):
        notices.request(asked(number))
        notices.refused(ApiError(422, "truncated", "cut"))
    assert flushed(notices)
    (told,) = watch.heard
    assert [one.route for one in told.requests] == [f"/{number}" for number in range(7, 12)]
    assert len(told.images) == 5 and told.untold == 14 and told.state == STATE


def test_it_tells_by_itself_and_what_is_left_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "EVERY_S", 0.01)
    watch = Away()
    notices = EventReporter(watch, lambda: STATE)

    async def while_it_tells() -> None:
        async with notices.told():
            notices.request(asked(1))
            async with asyncio.timeout(30):
                while not any(told.requests for told in watch.heard):
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(reporter, "EVERY_S", 3600.0)
            async with asyncio.timeout(30):
                before = len(watch.heard)
                while len(watch.heard) == before and before < 2:
                    await asyncio.sleep(0.01)
            notices.request(asked(2))

    asyncio.run(while_it_tells())
    assert [one for told in watch.heard for one in told.requests] == [asked(1), asked(2)]


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, True, "serve.max_upload_mb=1")


def requests_of(app: FastAPI) -> Counter[tuple[str, str]]:
    services: Services = app.state.services
    return Counter((one.route, one.status) for one in services.notices._requests)


def test_every_request_is_noticed_by_its_pattern(app: FastAPI) -> None:
    ask(app, "/infer", [FILM])
    ask(app, "/infer", [b""])
    ask(app, "/infer", [FILM[:100]], leaves=True)
    ask(app, "/infer", method="GET")
    ask(app, "/images/" + "0" * 64, method="GET")
    ask(app, "/images/stored/heatmap?label=Mass", method="GET")
    ask(app, "/nowhere/at/all", method="GET")
    ask(app, "/nowhere/else", method="BREW")
    services: Services = app.state.services
    services.scorer.score = None  # type: ignore[assignment, method-assign]
    assert ask(app, "/infer", [FILM]).status == 500
    assert requests_of(app) == {
        ("/infer", "2xx"): 1,
        ("/infer", "4xx"): 3,
        ("/infer", "5xx"): 1,
        ("/images/{image_id}", "4xx"): 1,
        ("/images/{image_id}/heatmap", "4xx"): 1,
        ("none", "4xx"): 2,
    }


def test_a_request_passes_piece_by_piece(app: FastAPI) -> None:
    """Refused at its second piece, while the third was never asked for."""
    pieces, told = [b"x" * 700_000] * 3, list[int]()

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        told.append(message.get("status", 0))

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/infer", "raw_path": b"/infer"}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "headers": [], "server": ("a", 1)}
    asyncio.run(app(scope, receive, send))
    assert told[0] == 413 and len(pieces) == 1


def test_metrics_and_report_over_the_application(app: FastAPI) -> None:
    """Of this process they hold all that happened before."""
    strange = encoded(255 - films()[0])
    files = [("file", "a.png", "image/png", FILM), ("file", "b.png", "image/png", FILM)]
    for data in (FILM, FILM, FILM[:-40], strange):
        ask(app, "/predict", [data])
    body, headers = form(*files)
    ask(app, "/predict", [body], headers)
    reply = ask(app, "/metrics", method="GET")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = parsed(reply.body)
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
    report = ask(app, "/drift_report", method="GET").json()
    assert report["verdict"] == "unknown" and "no drift reference" in report["reason"] and report["notice"]
    assert report["window"]["images"] == 4 and report["model"]["version"] == 1


def test_without_a_watch_requests_go_on(tmp_path: Path) -> None:
    app = local_app(tmp_path)
    services: Services = app.state.services
    gone = Away()
    gone.away = True
    services.notices._watch = gone
    with TestClient(app) as client:
        assert client.post("/infer", content=FILM, headers={"content-type": "image/png"}).status_code == 200
        for path in ("/metrics", "/drift_report"):
            answer = client.get(path)
            assert answer.status_code == 503 and answer.json()["code"] == "watch_unavailable"
            assert answer.headers["retry-after"]
        services.notices._watch = LocalWatch(EventCollector(lambda _: None))
        assert client.get("/drift_report").json()["window"]["images"] == 0, "told to the other watch"
