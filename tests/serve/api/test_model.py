"""The served model over HTTP: its history and the page of its evaluation."""

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI

from chestai.model.registry import Registry
from serve.api.services import Services
from serve.db.records import record_prediction
from tests.serve.support.local import Reply, local_app, send_request
from tests.serve.support.registry import CARD, add_model_card, register_bundles
from tests.serve.support.samples import make_image, make_prediction, sha
from tests.support.models import make_bundle


def get(app: FastAPI, target: str) -> Reply:
    return send_request(app, target, method="GET")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastAPI, Registry]:
    """An application and its registry, in which version 2 took over from version 1."""
    app = local_app(tmp_path_factory.mktemp("model"), False)
    services: Services = app.state.services
    second = make_bundle(6)
    points = {"Effusion": 0.95, "Mass": 0.3, "Pneumothorax": None}
    second = replace(second, card=second.card.model_copy(update={"thresholds": points}))
    registry = register_bundles(services.config, make_bundle(5), second)
    registry.note_gate(2, "")
    registry.promote(2)
    return app, registry


def test_history_has_the_current_champion_first(registry: tuple[FastAPI, Registry]) -> None:
    reply = get(registry[0], "/model/history")
    assert reply.status == 200, reply.body
    champions = reply.json()["champions"]
    assert [(one["version"], one["gate"]) for one in champions] == [(2, "passed"), (1, None)]
    assert champions[0]["registered_at"] >= champions[1]["registered_at"]


def test_card_is_a_page_that_runs_nothing(registry: tuple[FastAPI, Registry], tmp_path: Path) -> None:
    app, models = registry
    missing = get(app, "/model/card")
    assert (missing.status, missing.json()["code"]) == (404, "no_model_card")
    add_model_card(models, 1, tmp_path)
    page = get(app, "/model/card")
    assert (page.status, page.body.decode()) == (200, CARD) and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none';") and "script" not in policy


def test_draft_of_a_version_that_does_not_serve_has_its_operating_points(registry: tuple[FastAPI, Registry]) -> None:
    services: Services = registry[0].state.services
    probabilities = {"Effusion": 0.9, "Mass": 0.01, "Pneumothorax": 0.7}
    for version in (1, 2, 3):
        image, prediction = make_image(version), make_prediction(version, 0.5, version=version)
        with services.state.store.database.write_session() as session:
            record_prediction(session, image, prediction.model_copy(update={"probabilities": probabilities}))
    served, other, unknown = (get(registry[0], f"/images/{sha(version)}/report") for version in (1, 2, 3))
    assert "The model suggests a pleural effusion." in served.json()["text"]
    assert "The model finds no pleural effusion or mass." in other.json()["text"]
    assert (unknown.status, unknown.code) == (503, "registry_unavailable")


def test_registry_that_cannot_be_asked_is_a_503(registry: tuple[FastAPI, Registry], tmp_path: Path) -> None:
    services: Services = registry[0].state.services
    tracking = services.config.tracking.model_copy(update={"model": "another"})
    config = services.config.model_copy(update={"tracking": tracking})
    registry[0].state.services = replace(services, config=config)
    try:
        for route in ("/model/history", "/model/card"):
            reply = get(registry[0], route)
            assert (reply.status, reply.json()["code"]) == (503, "registry_unavailable")
    finally:
        registry[0].state.services = services
