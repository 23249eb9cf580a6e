"""An HTTP server on loopback that keeps what is posted to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hush-hush"


@dataclass
class Hook:
    """status: what it answers. got: the bodies, oldest first."""

    url: str = ""
    status: int = 204
    got: list[Any] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Hook]:
    """Its URL has a token in path and query."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/{TOKEN}?key={TOKEN}"
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
