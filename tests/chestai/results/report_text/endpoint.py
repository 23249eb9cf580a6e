"""A language model's endpoint on loopback that answers as a test says."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]
Request = tuple[str, dict[str, str], Any]
"""Path, headers and JSON."""

DRIBBLE_S = 0.05  # between two bytes


class Endpoint:
    """What came in.

    Attributes:
        url: Of the API, as a configuration names it.
        requests: In the order in which they came.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []


@contextlib.contextmanager
def run_endpoint(answer: Answer) -> Iterator[Endpoint]:
    """Runs an endpoint while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.requests.append((self.path, dict(self.headers), json.loads(body)))
            with contextlib.suppress(ConnectionError):  # the client may have had enough
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(body: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer with this body."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def complete(content: object) -> Answer:
    """A chat completion with this content."""
    return send(json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode())


def say(text: object) -> Answer:
    """A chat completion in the form that was asked for."""
    return complete(json.dumps({"text": text}))


def dribble(head: bytes) -> Answer:
    """Starts as given, and goes on for ever, a byte at a time."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(head)
        while True:
            request.wfile.write(b" ")
            time.sleep(DRIBBLE_S)

    return answer
