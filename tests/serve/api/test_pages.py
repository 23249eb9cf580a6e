"""The first page and the summary of the health; both are public."""

import re
from dataclasses import replace

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

from chestai import RESEARCH_USE
from serve.api.app import create_app
from serve.api.services import ModelRouter, Services
from serve.db.database import Database
from serve.problems import overloaded_error
from serve.schemas.inference import ModelInfo
from tests.serve.support.local import LocalScorer, Reply, local_app, send_request


class BusyScorer(LocalScorer):
    """A scorer whose model does not respond."""

    async def model_info(self) -> ModelInfo:
        raise overloaded_error("busy")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("pages"), False, "auth.required=true")


def get(app: FastAPI, path: str, **headers: str) -> Reply:
    return send_request(app, path, headers=headers, method="GET")


def test_root_says_what_this_is_as_json_and_as_a_page(app: FastAPI) -> None:
    reply = get(app, "/")
    assert reply.status == 200 and reply.headers["content-type"] == "application/json"
    description = reply.json()
    assert description["notice"] == RESEARCH_USE and "Chest X-ray" in description["description"]
    page = get(app, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert RESEARCH_USE in page.body.decode()
    links = re.findall(r'href="([^"]+)"', page.body.decode())
    assert links == [description[name] for name in ("ui", "docs", "openapi", "health")]
    assert {get(app, link).status for link in links} == {200}


def test_health_summarises_model_and_database(app: FastAPI) -> None:
    reply = get(app, "/health")
    summary = reply.json()
    assert reply.status == 200 and summary["status"] == "ok" and summary["database"] is True
    assert summary["model"]["version"] == 1
    assert set(summary) == {"status", "model", "database", "notice"}


def test_health_is_degraded_without_model_or_database(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    services: Services = app.state.services
    assert isinstance(services.model.scorer, LocalScorer)
    busy = create_app(replace(services, model=ModelRouter(BusyScorer(services.model.scorer.model))))
    reply = get(busy, "/health")
    assert (reply.status, reply.json()["status"], reply.json()["model"]) == (200, "degraded", None)

    def fail(_: Database) -> None:
        raise OperationalError("SELECT 1", {}, Exception("secret host"))

    monkeypatch.setattr(Database, "read_session", fail)
    reply = get(app, "/health")
    assert (reply.status, reply.json()["status"], reply.json()["database"]) == (200, "degraded", False)
    assert b"secret" not in reply.body
