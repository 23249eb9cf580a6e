"""FHIR of the gateway's films: hostile requests, and that nothing but the answer names the patient."""

from pathlib import Path
from uuid import uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from chestai.results.fhir.capability import SERVED
from chestai.results.fhir.vocabulary import make_uuid
from serve.db.models import AuditRow, Base
from tests.serve.gateway.fhir.client import SERVER, ask, find, find_code, get
from tests.serve.gateway.recorded import Recorded
from tests.serve.support.local import local_app, send_request

HOSTILE = (
    "",
    "\0",
    "a\0b",
    "x" * 201,
    "a,b",
    "a|b|c",
    "\\",
    "|",
    "urn:x|",
    "\ufffd",
    "' OR 1=1 --",
    "%",
    "1" * 200,
    "🫁",
)


@pytest.mark.parametrize("name", ["_id", "identifier", "patient", "study", "accession", "_count", "_after", "_format"])
def test_hostile_parameters_are_refused_or_find_nothing(name: str, app: FastAPI, recorded: Recorded) -> None:
    recorded.add("PAT-1", "1.2.3")
    for value in HOSTILE:
        for kind in SERVED:
            reply = get(app, kind, **{name: value})
            if reply.status == 200 and (name, value) != ("_after", "") and name != "_count":
                assert reply.json()["total"] == 0, value
            elif reply.status != 200:
                assert find_code(reply, 422) == "invalid_request"


@pytest.mark.parametrize("query", ["name=Doe", "patient=PAT-1&patient=PAT-2", "patient:exact=PAT-1", "_count=0"])
def test_a_filter_is_never_ignored(query: str, app: FastAPI) -> None:
    assert find_code(get(app, f"DiagnosticReport?{query}"), 422) == "invalid_request"


@pytest.mark.parametrize("content", [None, b"", bytes(128) + b"DICM\x10\0\x20\0LO\4\0Jane\x10\0"])
def test_a_film_whose_file_is_gone_or_damaged_is_not_told(
    content: bytes | None, app: FastAPI, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    path = recorded.intake.find(recorded.add("PAT-1", "1.2.3"))
    report = find(app, "DiagnosticReport")[0]["id"]
    assert path is not None
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert find(app, "DiagnosticReport") == []
    assert find_code(get(app, f"DiagnosticReport/{report}"), 404) == "unknown_resource"
    assert "Jane" not in caplog.text and ("damaged" in caplog.text) == (content is not None)


def test_nothing_but_the_answer_names_the_patient(
    app: FastAPI, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    recorded.review(recorded.add("PAT-1", "1.2.3"), "TP")
    (patient,) = find(app, "Patient", patient="PAT-1", accession="ACC-1")
    get(app, "Patient/PAT-1")
    get(app, "PAT-1")
    ask(app, f"Patient/{patient['id']}")
    get(app, "Patient", name="Jane", patient="PAT-1")
    with recorded.database.read_session() as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.action == "fhir").order_by(AuditRow.sequence))
        assert [row.object for row in rows] == ["Patient", "", "", f"Patient/{patient['id']}", "Patient"]
        dump = str([row for table in Base.metadata.sorted_tables for row in session.execute(select(table))])
    assert patient["id"] in dump and "film_revisions" in Base.metadata.tables
    metrics = send_request(app, "/metrics", method="GET").body.decode()
    guessable = make_uuid("Patient", patient["identifier"][0]["system"], "PAT-1")
    for secret in ("PAT-1", "ACC-1", "Jane", guessable):
        assert secret not in dump and secret not in caplog.text and secret not in metrics


def test_it_is_off_unless_switched_on(tmp_path: Path) -> None:
    for name in ("off", "on", "fhir"):
        (tmp_path / name).mkdir()
    off = local_app(tmp_path / "off", False, "gateway.stow=true")
    for path in ("metadata", "Patient", f"Patient/{uuid4()}"):
        assert find_code(get(off, path), 403) == "fhir_off"
    on = local_app(tmp_path / "on", False, "gateway.fhir=true", "auth.required=true")
    statement = ask(on, "metadata")  # for everybody
    assert statement["implementation"]["url"] == f"{SERVER}/fhir"
    assert [one["type"] for one in statement["rest"][0]["resource"]] == [*SERVED]
    reply = get(on, "Patient")
    assert find_code(reply, 401) == "unauthorised" and reply.headers["www-authenticate"] == "Bearer"
    films = send_request(local_app(tmp_path / "fhir", False, "gateway.fhir=true"), "/dicomweb/studies")
    assert films.json()["code"] == "stow_off"
