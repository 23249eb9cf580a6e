"""The HTTP server of an endpoint on one machine: uvicorn, with deadlines for clients that send too slowly.

uvicorn itself closes only connections that are idle after a response. Ray Serve's own servers have no other deadline:
there, the gateway in front has to hold back incomplete requests.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.deployments.tls import CIPHERS

KEEP_ALIVE_S = 90  # as in Ray Serve: longer than load balancers keep idle connections
HEAD_TIMEOUT_S = 10.0  # from the connection, or the first byte of a further request, to the end of its head
REST_TIMEOUT_S = 30.0  # for the rest of a body whose response is sent; closing earlier could lose the response
MAX_HEAD_BYTES = 64 * 2**10


class ImpatientProtocol(HttpToolsProtocol):
    """A connection that is closed if a request's head is late or too large, or if the rest of a body is late.

    While the application works on a request, no timer runs: it has deadlines of its own.
    """

    _timer: asyncio.TimerHandle | None = None
    _in_head, _in_message = True, False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_timer(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data) if self._in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()
        elif self._timer is None and self._has_answered() and not self._in_message:
            self._set_timer(KEEP_ALIVE_S)  # uvicorn's own timer ended with this data

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_message, self._head_bytes = True, True, 0
        if self._has_answered():
            self._set_timer(HEAD_TIMEOUT_S)

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._set_timer(None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        self._set_timer(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_answered() and self._in_message:
            self._set_timer(HEAD_TIMEOUT_S if self._in_head else REST_TIMEOUT_S)

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # to close it would wait for a client that does not read

    def _has_answered(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete

    def _set_timer(self, seconds: float | None) -> None:
        """Closes the connection after so many seconds, unless the timer is set again before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def build_server(app: FastAPI, deadline_seconds: float, tls: Mapping[str, Any]) -> uvicorn.Server:
    """Builds the server.

    Args:
        deadline_seconds: Most seconds that requests under way get at shutdown.
        tls: From `serve.deployments.tls.https_options`.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=ImpatientProtocol,
            ws="none",
            access_log=False,
            log_config=None,
            proxy_headers=False,  # the application trusts serve.trusted_proxies alone
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(deadline_seconds),
            ssl_ciphers=CIPHERS,
            **tls,
        )
    )
