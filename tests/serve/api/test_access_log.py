"""Every access to what the endpoint holds is in the audit, once; nothing there tells who a patient is."""

import hashlib
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from serve.api.services import Services
from serve.auth import api_keys
from serve.auth.bootstrap import add_first_admin
from serve.auth.permissions import PERMISSIONS
from serve.db.audit import verify_chain
from serve.db.models import AuditRow
from tests.serve.support.hostile import WHOLE
from tests.serve.support.local import ask, form, local_app
from tests.serve.support.routes import ROUTES

IMAGE = hashlib.sha256(WHOLE).hexdigest()
JSON = {"content-type": "application/json"}
VERDICT = f'{{"image_id": "{IMAGE}", "verdicts": {{"Mass": "TP"}}}}'.encode()

# A request of every route that needs a key, the status it is answered with, and what the audit says of it. Not of
# /metrics, whose counters say nothing of anybody.
ACCESSES = {
    ("POST", "/infer"): ("/infer", WHOLE, {}, 200, ("infer", IMAGE)),
    ("POST", "/predict"): ("/predict", WHOLE, {}, 200, ("predict", IMAGE)),
    ("POST", "/batch_predict"): (
        "/batch_predict",
        *form(("files", "Doe^Jane.png", "image/png", WHOLE)),
        200,
        ("predict", IMAGE),
    ),
    ("GET", "/images/{image_id}"): (f"/images/{IMAGE}", b"", {}, 200, ("image", IMAGE)),
    ("GET", "/images/{image_id}/heatmap"): ("/images/stored/heatmap?label=Mass", b"", {}, 200, ("heatmap", "stored")),
    ("GET", "/studies"): ("/studies?finding=Mass", b"", {}, 200, ("studies", "")),
    ("POST", "/reviews"): ("/reviews", VERDICT, JSON, 201, ("review", IMAGE)),
    ("POST", "/batch_infer"): ("/batch_infer", b'{"prefix": "lake"}', JSON, 202, ("job.submit", "{job_id}")),
    ("GET", "/jobs/{job_id}"): ("/jobs/{job_id}", b"", {}, 200, ("job", "{job_id}")),
    ("DELETE", "/jobs/{job_id}"): ("/jobs/{job_id}", b"", {}, 200, ("job.cancel", "{job_id}")),
    ("GET", "/drift_report"): ("/drift_report", b"", {}, 200, ("drift", "")),
    ("GET", "/model"): ("/model", b"", {}, 200, ("model", "")),
    ("GET", "/keys"): ("/keys", b"", {}, 200, ("keys", "")),
    ("POST", "/keys"): ("/keys", b'{"owner": "new", "role": "reader"}', JSON, 201, ("key.make", "new")),
    ("DELETE", "/keys/{prefix}"): ("/keys/{prefix}", b"", {}, 204, ("key.revoke", "{prefix}")),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("accesses"), False, "auth.required=true")


@pytest.fixture(scope="module")
def admin(app: FastAPI) -> dict[str, str]:
    services: Services = app.state.services
    key = add_first_admin(services.store.database)
    assert key is not None
    ask(app, "/infer", [WHOLE], {"x-api-key": key})
    return {"x-api-key": key}


def rows(app: FastAPI) -> list[AuditRow]:
    services: Services = app.state.services
    with services.store.database.read_session() as session:
        return list(session.scalars(select(AuditRow).order_by(AuditRow.sequence)))


def test_every_route_with_data_is_tried() -> None:
    assert {*ACCESSES} == {route for route in ROUTES if PERMISSIONS[route] is not None} - {("GET", "/metrics")}


@pytest.mark.parametrize("route", ACCESSES, ids=" ".join)
def test_an_access_is_noted_once(route: tuple[str, str], app: FastAPI, admin: dict[str, str]) -> None:
    target, body, headers, status, (action, what) = ACCESSES[route]
    services: Services = app.state.services
    with services.store.database.write_session() as session:
        if not any(one.owner == "spare" for one in api_keys.list_keys(session)):
            api_keys.add_user(session, "spare", "reader")
        prefix = api_keys.create_key(session, "spare").split("_")[1]
    job = ask(app, "/batch_infer", [b'{"prefix": "lake"}'], {**JSON, **admin}) if "{job_id}" in target else None
    names = {"{prefix}": prefix, "{job_id}": job.json()["job_id"] if job else ""}
    before = len(rows(app))
    reply = ask(app, named(target, names), [body], {**headers, **admin}, method=route[0])
    assert reply.status == status, reply.body
    if job is None and what == "{job_id}":
        names = {what: reply.json()["job_id"]}
    new = rows(app)[before:]
    assert [(one.actor, one.action, one.object) for one in new] == [("admin", action, named(what, names))]


def named(text: str, names: dict[str, str]) -> str:
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return text


@pytest.mark.parametrize("route", ACCESSES, ids=" ".join)
def test_so_is_one_that_is_refused(route: tuple[str, str], app: FastAPI, admin: dict[str, str]) -> None:
    before = len(rows(app))
    assert ask(app, route[1].replace("{image_id}", IMAGE), method=route[0]).status == 401
    new = rows(app)[before:]
    assert [(one.actor, one.action, one.object) for one in new] == [("nobody", "refused", " ".join(route))]


def test_what_says_nothing_of_anybody_is_not_noted(app: FastAPI, admin: dict[str, str]) -> None:
    before = len(rows(app))
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs", "/nowhere", "/metrics"):
        ask(app, path, headers=admin, method="GET")
    assert len(rows(app)) == before


@pytest.mark.parametrize(
    "target",
    [
        "/images/Doe Jane 1950/heatmap?label=Mass",
        "/images/a\x00b/heatmap?label=Mass",
        f"/images/{'9' * 300}/heatmap?label=Mass",
        "/images/Doe, Jane",
        "/studies?finding=Doe^Jane",
        "/studies?split=Doe^Jane&cursor=Doe^Jane",
    ],
)
def test_no_text_of_a_client_comes_into_it(target: str, app: FastAPI, admin: dict[str, str]) -> None:
    before = len(rows(app))
    ask(app, target, headers=admin, method="GET")
    new = rows(app)[before:]
    assert [(one.object, one.detail) for one in new] == [("", "{}")]


def test_the_chain_is_whole(app: FastAPI, admin: dict[str, str]) -> None:
    services: Services = app.state.services
    found = verify_chain(services.store.database)
    assert found.broken_at is None and found.rows == len(rows(app)) > 1
    assert "Jane" not in str([vars(one) for one in rows(app)])


def test_nothing_is_shown_that_could_not_be_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away and its backlog full: a read is refused, for nobody could be told of it later."""
    app = local_app(tmp_path, False)
    services: Services = app.state.services

    def full(*events: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(services.store, "save_events", full)
    reply = ask(app, "/model", method="GET")
    assert (reply.status, reply.json()["code"]) == (503, "state_full")
