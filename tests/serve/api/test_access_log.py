"""The audit records every access to data of the endpoint once, without anything that identifies a patient."""

import hashlib
import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from chestai.results.film import film_id_of
from serve.api.services import Services
from serve.auth import api_keys
from serve.auth.bootstrap import add_first_admin
from serve.auth.permissions import PERMISSIONS
from serve.db.audit import verify_chain
from serve.db.models import AuditRow
from tests.serve.support.films import add_film_row
from tests.serve.support.hostile import WHOLE
from tests.serve.support.local import encode_form, local_app, send_request
from tests.serve.support.registry import add_model_card, register_bundles
from tests.serve.support.routes import ROUTES
from tests.support.dicom import EIGHT, a_file, instance
from tests.support.models import make_bundle

IMAGE = hashlib.sha256(WHOLE).hexdigest()
JSON, FORM = {"content-type": "application/json"}, {"content-type": "application/x-www-form-urlencoded"}
ARCHIVE = "{kind: dicomweb, url: 'http://127.0.0.1:9/dicom-web'}"
GATEWAY = ("gateway.stow=true", "gateway.fhir=true", f"gateway.priors={ARCHIVE}")
RELATED = {"content-type": 'multipart/related; type="application/dicom"; boundary=edge'}
PATIENT = "Patient/0b8f5d7e-2a43-5c57-8f0c-6f6a5c1f3b10"
VERDICT = f'{{"image_id": "{IMAGE}", "verdicts": {{"Mass": "TP"}}}}'.encode()


def relate(number: int) -> bytes:
    """A body of multipart/related with a film."""
    film = a_file(EIGHT, 8, **instance(number, "Doe"))
    return b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + film + b"\r\n--edge--\r\n"


# For every route that needs a key: a request, the status of the response, and action and object of the audit event.
# Except /metrics, whose counters are about nobody.
ACCESSES = {
    ("POST", "/infer"): ("/infer", WHOLE, {}, 200, ("infer", IMAGE)),
    ("POST", "/predict"): ("/predict", WHOLE, {}, 200, ("predict", IMAGE)),
    ("POST", "/batch_predict"): (
        "/batch_predict",
        *encode_form(("files", "Doe^Jane.png", "image/png", WHOLE)),
        200,
        ("predict", IMAGE),
    ),
    ("POST", "/dicomweb/studies"): (
        "/dicomweb/studies",
        relate(1),
        RELATED,
        200,
        ("film.received", film_id_of("1.2.1")),
    ),
    ("POST", "/dicomweb/studies/{study}"): (
        "/dicomweb/studies/1.9.2",
        relate(2),
        RELATED,
        200,
        ("film.received", film_id_of("1.2.2")),
    ),
    ("GET", "/fhir/{kind}"): ("/fhir/Patient?patient=Doe", b"", {}, 200, ("fhir", "Patient")),
    ("POST", "/fhir/{kind}/_search"): ("/fhir/Patient/_search", b"patient=Doe", FORM, 200, ("fhir", "Patient")),
    ("GET", "/fhir/{kind}/{resource_id}"): (f"/fhir/{PATIENT}", b"", {}, 404, ("fhir", PATIENT)),
    ("GET", "/images/{image_id}"): (f"/images/{IMAGE}", b"", {}, 200, ("image", IMAGE)),
    ("GET", "/images/{image_id}/heatmap"): ("/images/stored/heatmap?label=Mass", b"", {}, 200, ("heatmap", "stored")),
    ("GET", "/images/{image_id}/file"): (f"/images/{IMAGE}/file", b"", {}, 200, ("file", IMAGE)),
    ("GET", "/images/{image_id}/preview"): (f"/images/{IMAGE}/preview", b"", {}, 200, ("preview", IMAGE)),
    ("GET", "/images/{image_id}/map"): (f"/images/{IMAGE}/map?label=Mass", b"", {}, 200, ("map", IMAGE)),
    ("GET", "/images/{image_id}/priors"): (f"/images/{IMAGE}/priors", b"", {}, 200, ("priors", IMAGE)),
    ("POST", "/images/{image_id}/priors"): (f"/images/{IMAGE}/priors", b"", {}, 202, ("priors.request", IMAGE)),
    ("GET", "/images/{image_id}/report"): (f"/images/{IMAGE}/report", b"", {}, 200, ("report", IMAGE)),
    ("GET", "/studies/summary"): ("/studies/summary", b"", {}, 200, ("summary", "")),
    ("POST", "/studies/{image_id}/claim"): (f"/studies/{IMAGE}/claim", b"", {}, 200, ("claim", IMAGE)),
    ("DELETE", "/studies/{image_id}/claim"): (f"/studies/{IMAGE}/claim", b"", {}, 204, ("release", IMAGE)),
    ("GET", "/agreement"): ("/agreement", b"", {}, 200, ("agreement", "")),
    ("GET", "/studies"): ("/studies?finding=Mass", b"", {}, 200, ("studies", "")),
    ("POST", "/reviews"): ("/reviews", VERDICT, JSON, 201, ("review", IMAGE)),
    ("POST", "/batch_infer"): ("/batch_infer", b'{"prefix": "lake"}', JSON, 202, ("job.submit", "{job_id}")),
    ("GET", "/jobs"): ("/jobs", b"", {}, 200, ("jobs", "")),
    ("GET", "/audit"): ("/audit", b"", {}, 200, ("audit", "")),
    ("GET", "/jobs/{job_id}"): ("/jobs/{job_id}", b"", {}, 200, ("job", "{job_id}")),
    ("DELETE", "/jobs/{job_id}"): ("/jobs/{job_id}", b"", {}, 200, ("job.cancel", "{job_id}")),
    ("GET", "/drift_report"): ("/drift_report", b"", {}, 200, ("drift", "")),
    ("GET", "/model"): ("/model", b"", {}, 200, ("model", "")),
    ("GET", "/model/history"): ("/model/history", b"", {}, 200, ("model", "")),
    ("GET", "/model/card"): ("/model/card", b"", {}, 200, ("model", "")),
    ("GET", "/keys"): ("/keys", b"", {}, 200, ("keys", "")),
    ("POST", "/keys"): ("/keys", b'{"owner": "new", "role": "reader"}', JSON, 201, ("key.make", "new")),
    ("DELETE", "/keys/{prefix}"): ("/keys/{prefix}", b"", {}, 204, ("key.revoke", "{prefix}")),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("accesses")
    app = local_app(folder, False, "auth.required=true", "state.keep_images=true", *GATEWAY)
    services: Services = app.state.services
    add_model_card(register_bundles(services.config, make_bundle()), 1, folder)
    return app


@pytest.fixture(scope="module")
def admin(app: FastAPI) -> dict[str, str]:
    services: Services = app.state.services
    key = add_first_admin(services.state.store.database)
    assert key is not None
    send_request(app, "/infer", [WHOLE], {"x-api-key": key})
    add_film_row(services.state.store.database, IMAGE)
    return {"x-api-key": key}


def load_rows(app: FastAPI) -> list[AuditRow]:
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        return list(session.scalars(select(AuditRow).order_by(AuditRow.sequence)))


def test_accesses_cover_every_route_with_data() -> None:
    assert {*ACCESSES} == {route for route in ROUTES if PERMISSIONS[route] is not None} - {("GET", "/metrics")}


@pytest.mark.parametrize("route", ACCESSES, ids=" ".join)
def test_access_is_recorded_once(route: tuple[str, str], app: FastAPI, admin: dict[str, str]) -> None:
    target, body, headers, status, (action, subject) = ACCESSES[route]
    services: Services = app.state.services
    with services.state.store.database.write_session() as session:
        if not any(key.owner == "spare" for key in api_keys.list_keys(session)):
            api_keys.add_user(session, "spare", "reader")
        prefix = api_keys.create_key(session, "spare").split("_")[1]
    job = (
        send_request(app, "/batch_infer", [b'{"prefix": "lake"}'], {**JSON, **admin}) if "{job_id}" in target else None
    )
    names = {"{prefix}": prefix, "{job_id}": job.json()["job_id"] if job else ""}
    before = len(load_rows(app))
    reply = send_request(app, fill_placeholders(target, names), [body], {**headers, **admin}, method=route[0])
    assert reply.status == status, reply.body
    if job is None and subject == "{job_id}":
        names = {subject: reply.json()["job_id"]}
    new = load_rows(app)[before:]
    assert [(row.actor, row.action, row.object) for row in new] == [
        ("admin", action, fill_placeholders(subject, names))
    ]


def fill_placeholders(text: str, names: dict[str, str]) -> str:
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return text


@pytest.mark.parametrize("route", ACCESSES, ids=" ".join)
def test_rejected_accesses_are_recorded_together(route: tuple[str, str], app: FastAPI, admin: dict[str, str]) -> None:
    before = len(load_rows(app))
    for _ in range(3):
        assert send_request(app, route[1].replace("{image_id}", IMAGE), method=route[0]).status == 401
    assert len(load_rows(app)) == before, "strangers write nothing"
    services: Services = app.state.services
    services.state.refusals.flush()
    new = load_rows(app)[before:]
    assert [(row.actor, row.action, row.object) for row in new] == [("nobody", "refused", " ".join(route))]
    detail = json.loads(new[0].detail)
    assert (detail["reason"], detail["count"]) == ("unauthorised", 3)


def test_refusals_of_a_user_name_the_user(app: FastAPI, admin: dict[str, str]) -> None:
    services: Services = app.state.services
    with services.state.store.database.write_session() as session:
        api_keys.add_user(session, "curious", "reader")
        key = api_keys.create_key(session, "curious")
    before = len(load_rows(app))
    for _ in range(2):
        assert send_request(app, "/keys", headers={"x-api-key": key}, method="GET").status == 403
    services.state.refusals.flush()
    (row,) = load_rows(app)[before:]
    assert (row.actor, row.object) == ("curious", "GET /keys")
    assert json.loads(row.detail)["reason"] == "forbidden" and json.loads(row.detail)["count"] == 2


def test_refusals_are_recorded_at_shutdown(tmp_path: Path) -> None:
    app = local_app(tmp_path, False, "auth.required=true")
    with TestClient(app) as client:
        assert [client.get("/studies").status_code for _ in range(50)] == [401] * 50
        assert load_rows(app) == []
    (row,) = load_rows(app)
    assert json.loads(row.detail)["count"] == 50


def test_public_routes_are_not_recorded(app: FastAPI, admin: dict[str, str]) -> None:
    before = len(load_rows(app))
    for path in (
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/docs",
        "/ui/",
        "/nowhere",
        "/metrics",
        "/fhir/metadata",
    ):
        send_request(app, path, headers=admin, method="GET")
    assert len(load_rows(app)) == before


@pytest.mark.parametrize(
    "target",
    [
        "/images/Doe Jane 1950/heatmap?label=Mass",
        "/images/a\x00b/heatmap?label=Mass",
        f"/images/{'9' * 300}/heatmap?label=Mass",
        "/images/Doe, Jane",
        "/studies?finding=Doe^Jane",
        "/studies?split=Doe^Jane&cursor=Doe^Jane",
        "/fhir/Patient/Jane",
        "/fhir/Jane",
        f"/fhir/Jane/{PATIENT.partition('/')[2]}",
    ],
)
def test_audit_holds_no_text_of_a_client(target: str, app: FastAPI, admin: dict[str, str]) -> None:
    before = len(load_rows(app))
    send_request(app, target, headers=admin, method="GET")
    new = load_rows(app)[before:]
    assert [(row.object, row.detail) for row in new] == [("", "{}")]


def test_audit_chain_is_intact(app: FastAPI, admin: dict[str, str]) -> None:
    services: Services = app.state.services
    check = verify_chain(services.state.store.database)
    assert check.broken_at is None and check.rows == len(load_rows(app)) > 1
    assert "Jane" not in str([vars(row) for row in load_rows(app)])


def test_read_is_rejected_if_it_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the database down and the outbox full, the read could not be traced later."""
    app = local_app(tmp_path, False)
    services: Services = app.state.services

    def full(*events: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(services.state.store, "save_events", full)
    reply = send_request(app, "/model", method="GET")
    assert (reply.status, reply.json()["code"]) == (503, "state_full")
