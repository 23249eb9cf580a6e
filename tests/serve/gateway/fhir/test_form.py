"""Searches by form: the answers of the others, with no patient ID in an address."""

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from chestai.results.fhir.capability import SERVED
from chestai.results.fhir.checks import check_resource
from serve.db.models import AuditRow
from tests.serve.gateway.fhir.client import ask, find, find_code, post
from tests.serve.gateway.recorded import Recorded
from tests.serve.support.local import local_app, send_request


def test_answers_are_those_of_the_search_by_address(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("P|1 +&=\u00e4", "1.2.3")
    recorded.add("PAT-2", "1.2.4")
    (patient,) = find(app, "Patient", study="1.2.3")
    searches = [
        {},
        {"patient": f"Patient/{patient['id']}"},
        {"patient": "PAT-2", "accession": "ACC-2"},
        {"patient": "P\\|1 +&=\u00e4"},
        {"study": "1.2.3", "_count": "1"},
        {"identifier": "nothing"},
    ]
    for kind in SERVED:
        for search in searches:
            reply = post(app, kind, urlencode(search))
            assert reply.status == 200, reply.body
            answer = reply.json()
            check_resource(answer)
            assert answer == ask(app, kind, **search)
    assert len(post(app, "Patient", urlencode(searches[3])).json()["entry"]) == 1


def test_pages_go_on_without_an_address(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("PAT-1", "1.2.3")
    recorded.add("PAT-2", "1.2.4")
    form, listed = {"patient": "PAT-1", "_count": "2"}, list[str]()
    while True:
        answer = post(app, "Observation", urlencode(form)).json()
        listed += [entry["resource"]["id"] for entry in answer["entry"]]
        following = [link["url"] for link in answer["link"] if link["relation"] == "next"]
        if not following:
            break
        form["_after"] = parse_qs(urlsplit(following[0]).query)["_after"][0]
    assert listed == [one["id"] for one in find(app, "Observation", patient="PAT-1")] and len(listed) == 3


@pytest.mark.parametrize(
    ("form", "content_type", "status", "code"),
    [
        ("patient=PAT-1", "application/json", 415, "unsupported_media_type"),
        ("patient=PAT-1", "", 415, "unsupported_media_type"),
        ("--edge\r\n", "multipart/form-data; boundary=edge", 415, "unsupported_media_type"),
        ("name=Doe", "application/x-www-form-urlencoded", 422, "invalid_request"),
        ("patient=PAT-1&patient=PAT-2", "application/x-www-form-urlencoded", 422, "invalid_request"),
        ("patient", "application/x-www-form-urlencoded", 422, "invalid_request"),
        ("patient=", "application/x-www-form-urlencoded", 422, "invalid_request"),
        ("patient=%ff", "application/x-www-form-urlencoded; charset=utf-8", 422, "invalid_request"),
        ("patient=" + "x" * 2**18, "application/x-www-form-urlencoded", 413, "upload_too_large"),
    ],
)
def test_a_filter_is_never_ignored(
    form: str, content_type: str, status: int, code: str, app: FastAPI, recorded: Recorded
) -> None:
    recorded.add("PAT-1", "1.2.3")
    assert find_code(post(app, "Patient", form, content_type), status) == code


def test_parameters_in_the_address_are_refused(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("PAT-1", "1.2.3")
    headers = {"content-type": "application/x-www-form-urlencoded"}
    reply = send_request(app, "/fhir/Patient/_search?patient=PAT-2", [b"patient=PAT-1"], headers)
    assert find_code(reply, 422) == "invalid_request" and b"PAT" not in reply.body


def test_unknown_types_are_not_found(app: FastAPI) -> None:
    assert find_code(post(app, "Practitioner", ""), 404) == "unknown_type"


def test_nothing_but_the_answer_names_the_patient(
    app: FastAPI, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    recorded.add("PAT-1", "1.2.3")
    for form in ("patient=PAT-1", "patient=PAT-1&name=Jane", "patient=PAT-1&patient=PAT-1"):
        post(app, "Patient", form)
    with recorded.database.read_session() as session:
        rows = list(session.scalars(select(AuditRow).where(AuditRow.action == "fhir")))
    assert [(row.object, row.detail) for row in rows] == [("Patient", "{}")] * 3
    assert "PAT-1" not in caplog.text


def test_it_is_off_unless_switched_on(app: FastAPI, recorded: Recorded) -> None:
    folder = recorded.intake.folder / "off"
    folder.mkdir()
    assert find_code(post(local_app(folder, False), "Patient", "patient=PAT-1"), 403) == "fhir_off"
