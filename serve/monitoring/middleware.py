"""The middleware that measures requests: bodies and answers pass through it as they are."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.monitoring.events import RequestEvent
from serve.monitoring.reporter import EventReporter


class RequestMetrics:
    """Notices every request: its route, how it ended and how long it took."""

    def __init__(self, app: ASGIApp, notices: EventReporter) -> None:
        self.app, self.notices = app, notices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), "none"  # where the client left before its answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            status = "5xx"  # told outside of this
            raise
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.notices.request(RequestEvent(route, status, time.perf_counter() - started))
