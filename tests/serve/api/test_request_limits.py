"""Requests that are too large or too slow are ended, and all together hold no more memory than they may."""

import base64
import re
import socket

import cv2
import numpy as np
import pytest
from fastapi import FastAPI

from serve.api import request_limits
from serve.api.request_limits import MAX_BODY_BYTES
from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.http_server import run_server
from tests.serve.support.local import Reply, local_app, send_request
from tests.support.processes import wait_until

PART = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nbytes'
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("bodies"), False, "auth.required=true")


@pytest.fixture(scope="module")
def admin(app: FastAPI) -> dict[str, str]:
    services: Services = app.state.services
    return {"x-api-key": add_first_admin(services.state.store.database) or ""}


@pytest.mark.parametrize("path", ["/reviews", "/keys"])
@pytest.mark.parametrize("has_key", [True, False])
def test_rejects_large_bodies(path: str, has_key: bool, app: FastAPI, admin: dict[str, str]) -> None:
    for headers in (JSON, {}, {**JSON, "content-length": "2"}):
        reply = send_request(app, path, [b"[" * 2**16] * 64, {**headers, **(admin if has_key else {})})
        assert (reply.status, reply.json()["code"]) == (413, "upload_too_large"), reply.body
        assert "256 KiB" in reply.json()["detail"]


def test_accepts_the_longest_review(app: FastAPI, admin: dict[str, str]) -> None:
    notes = "\\ud83e\\udec1" * 10_000  # a lung, as JSON in ASCII writes it
    body = f'{{"image_id": "{"a" * 64}", "verdicts": {{"Mass": "TP"}}, "notes": "{notes}"}}'.encode()
    assert MAX_BODY_BYTES / 3 < len(body) < MAX_BODY_BYTES
    reply = send_request(app, "/reviews", [body], {**JSON, **admin})
    assert (reply.status, reply.json()["code"]) == (404, "unknown_image")


def test_uploads_have_their_own_limit(app: FastAPI, admin: dict[str, str]) -> None:
    reply = send_request(app, "/infer", [b"x" * 2**16] * 64, admin)
    assert (reply.status, reply.json()["code"]) == (422, "not_an_image")


def is_overloaded(reply: Reply) -> bool:
    return (reply.status, reply.json()["code"]) == (503, "overloaded") and "retry-after" in reply.headers


def test_requests_share_one_memory_budget(app: FastAPI, admin: dict[str, str]) -> None:
    memory = app.state.services.memory
    film = encode_image(make_films()[0])
    assert send_request(app, "/infer?explain=Mass", [film], admin).status == 200
    assert memory.used == 0
    for held, target in (
        (memory.limit - 2 * len(film) + 1, "/infer"),
        (memory.limit - 3 * len(film), "/infer?explain=Mass"),
    ):
        memory.reserve(held)
        assert is_overloaded(send_request(app, target, [film], admin))
        assert memory.used == held
        assert send_request(app, "/studies", headers=admin, method="GET").status == 200
        memory.release(held)
    assert send_request(app, "/infer", [film], admin).status == 200


@pytest.mark.parametrize("declares_length", [True, False])
@pytest.mark.parametrize("path", ["/infer", "/batch_predict", "/reviews"])
def test_unfinished_body_is_rejected_and_its_memory_released(
    path: str, declares_length: bool, app: FastAPI, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "BODY_SECONDS", 0.3)
    kind = {"/reviews": "application/json", "/infer": "image/png"}.get(path, "multipart/form-data; boundary=edge")
    length = "content-length: 100000" if declares_length else "transfer-encoding: chunked"
    head = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-type: {kind}", length]
    head += [f"{name}: {value}" for name, value in admin.items()]
    with run_server(app) as address, socket.create_connection(address, timeout=20) as client:
        body = PART if path == "/batch_predict" else b"x" * 500
        chunk = body if declares_length else f"{len(body):x}\r\n".encode() + body + b"\r\n"
        client.sendall("\r\n".join([*head, "", ""]).encode() + chunk)
        reply = client.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 408 ") and b'"code":"upload_too_slow"' in reply
    assert app.state.services.memory.used == 0


def test_client_that_does_not_read_is_disconnected_and_its_memory_released(
    app: FastAPI, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "RESPONSE_SECONDS", 0.5)
    memory, film = app.state.services.memory, cv2.resize(make_films()[0], (1024, 1024))
    body = encode_image(np.where(np.random.default_rng(0).random(film.shape) < 0.5, film, 255 - film))
    names = "&".join(f"explain={finding}" for finding in ("Effusion", "Mass", "Pneumothorax"))
    head = [f"POST /infer?{names} HTTP/1.1", "host: 127.0.0.1", "content-type: image/png"]
    head += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in admin.items()), "", ""]
    with run_server(app) as address, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(address)
        client.sendall("\r\n".join(head).encode() + body)
        wait_until(lambda: memory.used > 2**22, 30, "the response")
        wait_until(lambda: memory.used == 0, 30, "giving up the response")
        reply = client.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 200 ")
    length = int(re.search(rb"content-length: (\d+)", reply)[1])  # type: ignore[index]
    assert len(reply) < length / 2


def test_overlays_are_at_most_a_megapixel(app: FastAPI, admin: dict[str, str]) -> None:
    film = np.asarray(cv2.resize(make_films()[0], (3000, 2000)), np.uint8)
    reply = send_request(app, "/infer?explain=Mass", [encode_image(film)], admin)
    assert reply.status == 200, reply.body
    png = base64.b64decode(reply.json()["overlays"][0]["png"])
    height, width, _ = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)).shape
    assert height * width <= 1024 * 1024 and height / width == pytest.approx(2 / 3, abs=0.01)
