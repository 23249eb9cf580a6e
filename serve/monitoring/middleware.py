"""Middleware that measures requests; it passes bodies and responses through unchanged."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.monitoring.events import RequestEvent
from serve.monitoring.reporter import EventReporter


class RequestMetrics:
    """Reports the route, status and duration of every request."""

    def __init__(self, app: ASGIApp, reporter: EventReporter) -> None:
        self.app, self.reporter = app, reporter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), "none"  # stays if the client disconnects before the response

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)

        try:
            await self.app(scope, receive, send_and_note_status)
        except Exception:
            status = "5xx"  # the response is sent by an outer middleware
            raise
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.reporter.record_request(RequestEvent(route, status, time.perf_counter() - started))
