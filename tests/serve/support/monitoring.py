"""A webhook server, and a parser of Prometheus metrics."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

TOKEN = "hush-hush"


@dataclass
class Webhook:
    """status: what the server responds with. bodies: what was posted, oldest first."""

    url: str = ""
    status: int = 204
    bodies: list[Any] = field(default_factory=list)


@contextmanager
def webhook_server() -> Iterator[Webhook]:
    """Runs an HTTP server on loopback. Its URL has a token in the path and in the query."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
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


def parse_metrics(text: bytes) -> dict[tuple[str, ...], float]:
    """Returns the value of each sample by its name and the values of its labels, in the order of the labels' names."""
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
