"""The HTTP server over real sockets: slow clients lose their connection, others do not; no proxy is trusted."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from chestai.config.schema import Tls
from serve.deployments import http_server
from serve.deployments.http_server import build_server
from serve.deployments.preflight import bind_socket
from serve.deployments.tls import https_options
from tests.serve.support.certificates import create_certificate
from tests.serve.support.local import local_app
from tests.serve.support.processes import poll
from tests.support.models import image

SHORT_S, LONG_S = 0.4, 30.0
HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def serving(app: FastAPI, host: str = "127.0.0.1", tls: Tls | None = None) -> Iterator[int]:
    """Serves the application for the block; yields the port."""
    server = build_server(app, deadline_seconds=5, tls=https_options(tls or Tls()))
    with bind_socket(host, 0) as listener:
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        poll(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("server"), False)


@pytest.fixture
def port(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server whose deadlines, other than the one of a test, are long."""
    for name in ("HEAD_TIMEOUT_S", "REST_TIMEOUT_S", "KEEP_ALIVE_S"):
        monkeypatch.setattr(http_server, name, LONG_S)
    with serving(app) as port:
        yield port


def wait_for_close(connection: socket.socket, drip: bytes = b"") -> float:
    """Returns after how many seconds the server closes a connection whose client sends `drip` again and again."""
    started = time.monotonic()
    connection.settimeout(0.05)
    while time.monotonic() - started < LONG_S / 4:
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(1 << 16):
                return time.monotonic() - started
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - started
    return LONG_S


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_response(connection: socket.socket) -> bytes:
    """Reads a response with a `Content-Length`; returns its status line."""
    with connection.makefile("rb") as file:
        status = file.readline()
        length = 0
        while line := file.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        file.read(length)
    return status


@pytest.mark.parametrize(
    ("start", "drip"),
    [(b"", b""), (HEAD, b""), (HEAD, b"X: y\r\n"), (b"", b"\r\n")],
    ids=["silent", "half", "slow", "crlf"],
)
def test_closes_a_connection_whose_head_is_late(
    start: bytes, drip: bytes, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT_S", SHORT_S)
    with connect(port) as connection:
        connection.sendall(start)
        assert SHORT_S / 2 < wait_for_close(connection, drip) < SHORT_S + 3


def test_closes_a_connection_whose_second_head_is_late(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(port) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert b"200" in read_response(connection)
        monkeypatch.setattr(http_server, "HEAD_TIMEOUT_S", SHORT_S)
        connection.sendall(HEAD)
        assert wait_for_close(connection, b"X: y\r\n") < SHORT_S + 3


def test_closes_a_connection_that_goes_on_with_a_body_after_the_response(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REST_TIMEOUT_S", SHORT_S)
    with connect(port) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert b"404" in read_response(connection)
        assert wait_for_close(connection, b"x") < SHORT_S + 3


def test_reads_the_rest_of_a_body_after_the_response(port: int) -> None:
    """Closing at once would reset the connection before the client has read the response."""
    with connect(port) as connection:
        size = 4 * http_server.MAX_HEAD_BYTES
        connection.sendall(f"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        assert b"404" in read_response(connection)
        connection.sendall(bytes(size))
        connection.sendall(HEAD + b"\r\n")
        assert b"200" in read_response(connection)


@pytest.mark.parametrize("rest", [b"", b"\r\n"])
def test_closes_an_idle_connection(rest: bytes, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 1)
    with serving(app) as port, connect(port) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert b"200" in read_response(connection)
        assert 0.5 < wait_for_close(connection, rest) < 5


def test_closes_a_connection_with_a_large_head(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(HEAD)
        assert wait_for_close(connection, b"X: " + b"y" * 8000 + b"\r\n") < LONG_S / 4


def test_slow_body_is_no_slow_head(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT_S", SHORT_S)
    data = image(1)
    with connect(port) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode())
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            time.sleep(2 * SHORT_S)
            connection.sendall(piece)
        assert b"200" in read_response(connection)


@pytest.mark.parametrize(("trusted", "statuses"), [("[]", [401, 401, 429, 429]), ("[127.0.0.0/8]", [401] * 4)])
def test_only_trusted_proxies_name_the_client(trusted: str, statuses: list[int], tmp_path: Path) -> None:
    limits = ("auth.required=true", "auth.requests_per_minute=1", "auth.burst=2")
    app = local_app(tmp_path, False, *limits, f"serve.trusted_proxies={trusted}")
    with serving(app) as port:
        spoofed = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(len(statuses))]
        replies = [httpx.get(f"http://127.0.0.1:{port}/studies", headers=headers) for headers in spoofed]
    assert [reply.status_code for reply in replies] == statuses


def test_own_address_is_a_known_host(app: FastAPI) -> None:
    """Probes of Kubernetes and Prometheus name the address of the pod, which no configuration knows."""
    with serving(app, "0.0.0.0") as port:
        for host, status in (("127.0.0.2", 200), ("localhost", 200), ("127.0.0.3", 421), ("evil.example", 421)):
            headers = {"Host": f"{host}:{port}"}
            assert httpx.get(f"http://127.0.0.2:{port}/health/live", headers=headers).status_code == status, host


def test_https_tells_browsers_to_stay_with_it(app: FastAPI, tmp_path: Path) -> None:
    tls = create_certificate(tmp_path, "server")
    trust = ssl.create_default_context(cafile=tls.certificate)
    with serving(app, tls=tls) as port:
        for path in ("health/live", "nowhere"):
            reply = httpx.get(f"https://127.0.0.1:{port}/{path}", verify=trust)
            assert reply.headers["strict-transport-security"].startswith("max-age=")
