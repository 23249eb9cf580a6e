"""Claims, verdicts and agreement over HTTP, on both kinds of database."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from serve.api.services import Services
from serve.auth.api_keys import add_user, create_key
from serve.auth.permissions import Role
from serve.db.audit import verify_chain
from serve.db.database import Database
from serve.db.models import AuditRow
from serve.db.records import record_prediction
from tests.serve.support.local import Reply, local_app, send_request
from tests.serve.support.samples import make_image, make_prediction, sha

STUDY = sha("a")
READERS: dict[str, Role] = {"rita": "reviewer", "omar": "reviewer", "guest": "reader"}


class Clinic:
    """An endpoint with one study, and a key for each of `READERS`."""

    def __init__(self, app: FastAPI) -> None:
        services: Services = app.state.services
        self.app, self.database = app, services.state.store.database
        with self.database.write_session() as session:
            for name, role in READERS.items():
                add_user(session, name, role)
            session.flush()
            self.keys = {name: create_key(session, name) for name in READERS}
            record_prediction(session, make_image("a"), make_prediction("a", 0.9))

    def send(self, reader: str, method: str, target: str, body: Any = None) -> Reply:
        headers = {"x-api-key": self.keys[reader], "content-type": "application/json"}
        return send_request(self.app, target, [] if body is None else [json.dumps(body).encode()], headers, method)

    def review(self, reader: str, verdict: str, **more: Any) -> Reply:
        return self.send(reader, "POST", "/reviews", {"image_id": STUDY, "verdicts": {"Mass": verdict}, **more})

    def get(self, target: str) -> Any:
        reply = self.send("guest", "GET", target)
        assert reply.status == 200, reply.body
        return reply.json()


@pytest.fixture
def clinic(database: Database, tmp_path: Path) -> Clinic:
    url = database.url.render_as_string(False)
    return Clinic(local_app(tmp_path, False, "auth.required=true", f"state.url={url}"))


def test_one_reader_at_a_time_claims_a_study(clinic: Clinic) -> None:
    claim = f"/studies/{STUDY}/claim"
    mine = clinic.send("rita", "POST", claim)
    assert mine.status == 200 and mine.json()["claimed_by"] == "rita"
    refused = clinic.send("omar", "POST", claim)
    assert (refused.status, refused.json()["code"]) == (409, "claimed") and "rita" in refused.json()["detail"]
    assert clinic.get("/studies")["studies"][0]["claimed_by"] == "rita"
    assert clinic.send("omar", "DELETE", claim).status == 204
    assert clinic.send("omar", "POST", claim).status == 409, "another reader's claim stays"
    assert clinic.send("rita", "DELETE", claim).status == 204
    assert clinic.get("/studies")["studies"][0]["claimed_by"] is None
    assert clinic.send("omar", "POST", claim).status == 200


def test_claims_need_a_reviewer_and_a_study(clinic: Clinic) -> None:
    for method in ("POST", "DELETE"):
        assert clinic.send("guest", method, f"/studies/{STUDY}/claim").status == 403
    unknown = clinic.send("rita", "POST", f"/studies/{'0' * 64}/claim")
    assert (unknown.status, unknown.json()["code"]) == (404, "unknown_image")


def test_repeated_request_counts_once(clinic: Clinic) -> None:
    request_id = str(uuid4())
    for _ in range(3):
        assert clinic.review("rita", "TP", request_id=request_id).status == 201
    assert clinic.review("omar", "FP", request_id=request_id).status == 201, "another reader's request is another one"
    reviews = clinic.get(f"/images/{STUDY}")["reviews"]
    assert [(review["reviewer"], review["verdict"]) for review in reviews] == [("rita", "TP"), ("omar", "FP")]
    check = verify_chain(clinic.database)
    with clinic.database.read_session() as session:
        assert session.scalar(select(func.count()).where(AuditRow.action == "review")) == 2
    assert check.broken_at is None
    assert clinic.review("rita", "TP", request_id="no UUID").status == 422


def test_withdrawn_verdict_puts_the_study_back(clinic: Clinic) -> None:
    assert clinic.review("rita", "unsure").status == 201
    assert clinic.get("/studies?reviewed=false")["studies"] == []
    assert clinic.review("rita", "withdrawn").status == 201
    (study,) = clinic.get("/studies?reviewed=false")["studies"]
    assert study["reviewed_at"] is None and study["positives"] == ["Mass"]


def test_agreement_and_summary(clinic: Clinic) -> None:
    assert clinic.get("/studies/summary")["buckets"]["urgent"] == {"total": 1, "unreviewed": 1}
    clinic.review("rita", "FP")
    clinic.review("rita", "TP")
    clinic.review("omar", "FP")
    agreement = clinic.get("/agreement")
    counts = {"TP": 1, "FP": 1, "TN": 0, "FN": 0, "unsure": 0, "agreement": 0.5}
    assert agreement["findings"] == [{"finding": "Mass", "model_version": 1, "verdicts": counts}]
    assert [(one["reviewer"], one["verdicts"]["agreement"]) for one in agreement["readers"]] == [
        ("omar", 0.0),
        ("rita", 1.0),
    ]
    assert len(agreement["days"]) == 1
    summary = clinic.get("/studies/summary")
    assert summary["buckets"]["urgent"] == {"total": 1, "unreviewed": 0} and summary["findings"] == {}


def test_search_over_http(clinic: Clinic) -> None:
    assert [study["image_id"] for study in clinic.get(f"/studies?search={STUDY[:8]}")["studies"]] == [STUDY]
    assert clinic.get("/studies?search=nothing")["studies"] == []
