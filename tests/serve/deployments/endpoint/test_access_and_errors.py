"""Access, records, health and errors over real HTTP."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import psutil
import pytest
from sqlalchemy import text

from chestai import RESEARCH_USE
from chestai.imaging.errors import REASONS
from serve.db.audit import verify_chain
from serve.db.database import Database, database_url
from tests.serve.support.routes import ROUTES
from tests.serve.support.service import Service, assert_problem
from tests.support.models import FINDINGS, image


def test_prediction_is_recorded_and_reviewed(service: Service) -> None:
    """In the worklist, the image's record and the audit, whose chain is intact."""
    data = image(31)
    result = service.post("/infer", files={"file": ("ward 7.png", data)}).json()
    image_id = result["image_id"]
    other_id = service.post("/infer", files={"file": image(32)}).json()["image_id"]
    listed = {study["image_id"]: study for study in service.get("/studies", limit="500").json()["studies"]}
    assert listed[image_id]["bucket"] == result["triage"]["bucket"] and listed[image_id]["file_name"] == "ward 7.png"
    verdicts = {"image_id": image_id, "verdicts": {"Mass": "TP", "Effusion": "FN"}, "notes": "seen twice"}
    assert service.post("/reviews", json=verdicts).status_code == 201
    record = service.get(f"/images/{image_id}").json()
    assert record["predictions"][0]["probabilities"] == pytest.approx(result["probabilities"])
    assert {review["finding"]: review["verdict"] for review in record["reviews"]} == verdicts["verdicts"]
    open_studies = {
        study["image_id"] for study in service.get("/studies", reviewed="false", limit="500").json()["studies"]
    }
    assert image_id not in open_studies and other_id in open_studies
    assert_problem(service.post("/reviews", json={**verdicts, "verdicts": {"Sadness": "TP"}}), 422, "unknown_finding")
    assert_problem(service.post("/reviews", json={**verdicts, "model_version": 99}), 422, "unknown_version")
    assert_problem(service.get(f"/images/{'0' * 64}"), 404, "unknown_image")
    assert_problem(service.get("/studies", cursor="nonsense"), 422, "invalid_request")
    database = Database(database_url(service.config))
    with database.read_session() as session:
        rows = session.execute(text("select action, actor, detail from audit where object = :it"), {"it": image_id})
        events = {row.action: row for row in rows}
    assert {"infer", "review", "image"} <= set(events) and {row.actor for row in events.values()} == {"admin"}
    assert not any("ward 7" in str(row.detail) for row in events.values()), "a file name may be a patient's name"
    assert verify_chain(database).broken_at is None
    database.close()


def test_requests_need_a_valid_key_with_sufficient_scopes(service: Service) -> None:
    unknown = replace(service, key="chestai_0123456789ab_" + "x" * 43)
    for caller in (unknown, replace(service, key="")):
        response = caller.infer(image(1))
        assert response.headers["www-authenticate"] == "Bearer"
        assert_problem(response, 401, "unauthorised")
        assert_problem(caller.get("/studies"), 401, "unauthorised")
        assert caller.get("/health/ready").status_code == 200
    created = service.post("/keys", json={"owner": "dr.reader", "role": "reader", "scopes": ["infer"]})
    assert created.status_code == 201, created.text
    reader = replace(service, key=created.json()["key"])
    assert reader.infer(image(1)).status_code == 200
    assert_problem(reader.get("/studies"), 403, "forbidden")
    assert_problem(reader.get("/keys"), 403, "forbidden")
    prefix = reader.key.split("_")[1]
    admin = {"X-API-Key": service.key}
    assert httpx.delete(f"{service.url}/keys/{prefix}", headers=admin, timeout=60).status_code == 204
    assert_problem(reader.infer(image(1)), 401, "unauthorised")
    assert {key["owner"] for key in service.get("/keys").json()["keys"]} == {"admin", "dr.reader"}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"I am a text, not a radiograph.\n" * 20, "not_an_image"),
        (image(8)[:-200], "truncated"),
        (image(8, suffix=".jpg")[:-200], "truncated"),
        (image(8, height=20, width=20), "too_small"),
    ],
    ids=["empty", "text", "cut-png", "cut-jpeg", "tiny"],
)
def test_unusable_image_gets_its_code_and_the_next_one_is_scored(service: Service, data: bytes, code: str) -> None:
    assert assert_problem(service.infer(data), 422, code)["detail"].startswith("not scored: ")
    assert_problem(service.infer(data, explain="Mass"), 422, code)
    assert service.infer(image(1)).status_code == 200


def test_rejects_large_uploads_with_and_without_a_declared_length(service: Service) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 2**16

    whole = b"".join(pieces())
    assert_problem(service.infer(whole), 413, "upload_too_large")
    assert_problem(service.post("/infer", content=pieces()), 413, "upload_too_large")
    form = service.post("/infer", files={"file": ("large.png", whole)})
    assert_problem(form, 413, "upload_too_large")
    assert service.infer(image(1)).status_code == 200


def test_wrong_requests_get_problem_documents(service: Service) -> None:
    unknown = assert_problem(service.infer(image(1), explain="Sadness"), 422, "unknown_finding")
    assert all(finding in unknown["detail"] for finding in FINDINGS)
    assert_problem(service.get("/images/stored/heatmap", label="Sadness"), 422, "unknown_finding")
    assert "label" in assert_problem(service.get("/images/stored/heatmap"), 422, "invalid_request")["detail"]
    assert_problem(service.get("/images/nobody/heatmap", label="Mass"), 404, "unknown_image")
    assert_problem(service.get("/images/gone/heatmap", label="Mass"), 404, "image_file_missing")
    assert_problem(service.get("/nowhere"), 404, "not_found")
    assert_problem(service.get("/infer"), 405, "method_not_allowed")
    nameless = service.post("/infer", files={"picture": ("a.png", image(1))})
    assert_problem(nameless, 422, "missing_file")
    as_text = service.post("/infer", files={"file": (None, "text")})
    assert_problem(as_text, 422, "missing_file")
    broken = service.post("/infer", content=b"--x", headers={"content-type": "multipart/form-data"})
    assert_problem(broken, 400, "invalid_request")


def test_health_model_and_docs(service: Service) -> None:
    health = service.get("/health/ready").json()
    assert health["status"] == "ok" and health["notice"] == RESEARCH_USE
    assert health["model"]["version"] == 1
    assert service.get("/health/live").json()["status"] == "ok"
    card = service.get("/model").json()
    assert card.pop("version") == 1 and card.pop("not_champion") is None
    assert card.pop("modes") == {"overlays": True, "reordering": True, "flag_only": False}
    assert card.pop("search") is False
    assert card == service.bundle.card.model_dump(mode="json")
    assert service.get("/health").json()["status"] == "ok"
    assert service.get("/docs").status_code == 200
    document = service.get("/openapi.json").json()
    assert RESEARCH_USE in document["info"]["description"]
    assert {path for _, path in ROUTES} == set(document["paths"])
    infer = document["paths"]["/infer"]["post"]
    assert "multipart/form-data" in infer["requestBody"]["content"]
    assert set(infer["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert all(f"`{reason}`" in infer["responses"]["422"]["description"] for reason in REASONS)
    assert "code" in document["components"]["schemas"]["Problem"]["properties"]


def test_listens_on_loopback_only(service: Service) -> None:
    port = httpx.URL(service.url).port
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert listening and set(listening) == {"127.0.0.1"}
