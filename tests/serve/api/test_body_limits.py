"""Nobody, with a key or without, makes the endpoint hold a large body that is no image."""

import pytest
from fastapi import FastAPI

from serve.api.body_limits import MOST
from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from tests.serve.support.local import ask, local_app

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("bodies"), False, "auth.required=true")


@pytest.fixture(scope="module")
def admin(app: FastAPI) -> dict[str, str]:
    services: Services = app.state.services
    return {"x-api-key": add_first_admin(services.store.database) or ""}


@pytest.mark.parametrize("path", ["/reviews", "/keys"])
@pytest.mark.parametrize("known", [True, False])
def test_a_large_body_is_refused(path: str, known: bool, app: FastAPI, admin: dict[str, str]) -> None:
    for headers in (JSON, {}, {**JSON, "content-length": "2"}):
        reply = ask(app, path, [b"[" * 2**16] * 64, {**headers, **(admin if known else {})})
        assert (reply.status, reply.json()["code"]) == (413, "upload_too_large"), reply.body
        assert "256 KiB" in reply.json()["detail"]


def test_the_largest_verdict_passes(app: FastAPI, admin: dict[str, str]) -> None:
    notes = "\\ud83e\\udec1" * 10_000  # a lung, as JSON in ASCII writes it
    body = f'{{"image_id": "{"a" * 64}", "verdicts": {{"Mass": "TP"}}, "notes": "{notes}"}}'.encode()
    assert MOST / 3 < len(body) < MOST
    reply = ask(app, "/reviews", [body], {**JSON, **admin})
    assert (reply.status, reply.json()["code"]) == (404, "unknown_image")


def test_images_have_a_limit_of_their_own(app: FastAPI, admin: dict[str, str]) -> None:
    reply = ask(app, "/infer", [b"x" * 2**16] * 64, admin)
    assert (reply.status, reply.json()["code"]) == (422, "not_an_image")
