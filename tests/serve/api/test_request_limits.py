"""Large bodies that are no images are rejected, with and without a valid key."""

import pytest
from fastapi import FastAPI

from serve.api.request_limits import MAX_BODY_BYTES
from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from tests.serve.support.local import local_app, send_request

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
