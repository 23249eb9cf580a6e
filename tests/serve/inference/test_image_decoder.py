"""Images that keep their decoders busy hold up nobody but those who wait for a decoder."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from chestai.imaging import decoder_process
from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.http_server import run_server
from tests.serve.support.local import local_app
from tests.support.dicom import film
from tests.support.processes import wait_until

FLOOD = 40  # more than asyncio has threads by default


def find_decoders() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it may have ended
            if decoder_process.__name__ in child.cmdline():
                found.append(child)
    return found


@pytest.mark.parametrize("kind", ["PNG", "DICOM"])
def test_other_requests_are_answered_while_all_decoders_are_busy(kind: str, tmp_path: Path) -> None:
    """The decoders are stopped, which is the worst that a file could do to them."""
    app = local_app(tmp_path, False, "auth.required=true", "serve.deadline_seconds=120")
    services: Services = app.state.services
    headers = {"x-api-key": add_first_admin(services.state.store.database) or ""}
    body = encode_image(make_films()[0]) if kind == "PNG" else film(0)
    with run_server(app) as (host, port), httpx.Client(base_url=f"http://{host}:{port}", headers=headers) as client:
        before = find_decoders()
        assert client.post("/infer", content=body).status_code == 200
        stopped = [decoder for decoder in find_decoders() if decoder not in before]
        for decoder in stopped:
            decoder.suspend()
        done = threading.Event()

        def stop_new_decoders() -> None:
            while not done.wait(0.02):
                for decoder in find_decoders():
                    if decoder not in before and decoder not in stopped:
                        decoder.suspend()
                        stopped.append(decoder)

        watcher = threading.Thread(target=stop_new_decoders)
        watcher.start()
        with ThreadPoolExecutor(FLOOD) as pool:
            url = f"http://{host}:{port}/infer"
            flood = [pool.submit(httpx.post, url, content=body, headers=headers, timeout=120) for _ in range(FLOOD)]
            wait_until(lambda: len(stopped) >= 2, 60, "stopping all decoders")
            for path in ("/model", "/studies", "/health/ready", "/model"):
                assert client.get(path, timeout=20).status_code == 200, path
            assert not any(request.done() for request in flood)
            done.set()
            watcher.join()
            for decoder in stopped:
                decoder.resume()
            assert {request.result().status_code for request in flood} == {200}
