"""What holds for every request and response, whatever the route: the host, the origin, and security headers.

A web page may send requests to any address that its browser reaches. Two checks keep it out of an endpoint that asks
for no credential: the `Host` that the browser names (DNS rebinding makes the page's own name lead here), and the
origin of the page (`Sec-Fetch-Site`, or `Origin` of older browsers). Where the credential is a cookie, which browsers
send unasked, `serve.api.security` asks for the endpoint's own origin.
"""

import re

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from chestai.config.schema import Config
from serve.api.services import Services
from serve.problems import Problem

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # they change nothing, and no page may read the response
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z._-]+))(?::\d+)?")  # a name or address, and a port
HSTS = "max-age=31536000"  # a year; over https alone, as RFC 6797 asks


class SecuredApp(FastAPI):
    """An application behind `HttpSecurity`, its own responses to unexpected errors included."""

    def build_middleware_stack(self) -> ASGIApp:
        services: Services = self.state.services
        app: ASGIApp = HttpSecurity(super().build_middleware_stack(), services.config)
        if proxies := services.config.serve.trusted_proxies:
            app = ProxyHeadersMiddleware(app, list(proxies))  # type: ignore[arg-type, assignment]
        return app


class HttpSecurity:
    """Middleware that rejects requests for other hosts or from other origins, and adds `SECURITY_HEADERS`."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app, self._hosts = app, {*LOOPBACK_HOSTS, config.serve.host.lower(), *config.serve.hosts}
        self._checks_origin = not config.auth.required  # otherwise a page would need a credential

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", HSTS)
            await send(message)

        problem = self._find_problem(scope)
        app = self._app if problem is None else problem.to_response()
        await app(scope, receive, send_with_headers)

    def _find_problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")  # none: HTTP/1.0, which no browser speaks
        if len(hosts) > 1 or not all(self._is_own_host(host, scope) for host in hosts):
            return Problem.of(421, "unknown_host", "no such host here: serve.hosts names the hosts of this endpoint")
        if self._checks_origin and scope["method"] not in SAFE_METHODS and _is_cross_origin(headers):
            return Problem.of(403, "cross_origin", "a page of another origin may change nothing here")
        return None

    def _is_own_host(self, host: str, scope: Scope) -> bool:
        match = HOST.fullmatch(host)
        if match is None or "*" in self._hosts:
            return match is not None
        name, local = (match[1] or match[2]).lower().removesuffix("."), scope.get("server")
        return name in self._hosts or (local is not None and name == local[0].removeprefix("::ffff:"))


def _is_cross_origin(headers: Headers) -> bool:
    """Returns whether a page of another origin sent a request. Other ports and subdomains are other origins."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")  # none: no page, but the user
    return origin is not None and not _is_own_origin(origin, headers)


def is_same_origin(headers: Headers) -> bool:
    """Returns whether a page of this endpoint certainly sent a request: a program, which says nothing, did not."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin"
    return origin is not None and _is_own_origin(origin, headers)


def _is_own_origin(origin: str, headers: Headers) -> bool:
    return origin.lower().partition("://")[2] == headers.get("host", "").lower()
