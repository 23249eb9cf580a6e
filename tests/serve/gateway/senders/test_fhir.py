"""Bundles to a strict FHIR server on loopback, which stores them, answers searches, or refuses."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from chestai.results.fhir.bundle import build_transaction
from chestai.results.fhir.resources import build_resources
from chestai.results.fhir.vocabulary import Release, Resource
from chestai.results.film_result import FilmResult
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.fhir import send
from tests.chestai.results.samples import HOSTILE_FILMS, RESULT, review
from tests.serve.gateway.senders.fhir_server import FhirServer, run_fhir_server
from tests.serve.gateway.senders.mllp_server import MllpReceiver, run_receiver
from tests.serve.support.certificates import create_certificate
from tests.serve.support.http_server import find_port

REVIEWED = replace(RESULT, reviews=(review("Cardiomegaly", "TP"),), revision=1)
RELEASES: tuple[Release, ...] = ("R4", "R5")


@pytest.fixture(scope="module")
def running() -> Iterator[FhirServer]:
    with run_fhir_server() as server:
        yield server


@pytest.fixture
def server(running: FhirServer) -> FhirServer:
    """An empty server."""
    running.release, running.token = "R4", None
    running.resources.clear()
    running.answers.clear()
    return running


def bundle(result: FilmResult, release: Release = "R4") -> Resource:
    return build_transaction(build_resources(result, release))


def push(server: FhirServer, result: FilmResult, **settings: Any) -> None:
    send(bundle(result), server.url, 10, **settings)


def get(server: FhirServer, path: str, **query: str) -> Resource:
    response = httpx.get(f"{server.url}/{path}", params=query, trust_env=False)
    response.raise_for_status()
    resource: Resource = response.json()
    return resource


@pytest.mark.parametrize("release", RELEASES)
def test_a_bundle_reads_back(server: FhirServer, release: Release) -> None:
    server.release = release
    sent = bundle(RESULT, release)
    send(sent, server.url, 10, release=release)
    identifier = sent["entry"][-1]["resource"]["identifier"][0]
    found = get(server, "DiagnosticReport", identifier=f"{identifier['system']}|{identifier['value']}")
    assert found["total"] == 1
    report = found["entry"][0]["resource"]
    assert get(server, report["subject"]["reference"])["identifier"][0]["value"] == "PAT-4711"
    study = get(server, report["imagingStudy" if release == "R4" else "study"][0]["reference"])
    assert study["numberOfInstances"] == 1
    observations = [get(server, one["reference"]) for one in report["result"]]
    assert [one["code"]["text"] for one in observations][:2] == ["Triage bucket", "Cardiomegaly"]
    assert observations[1]["valueQuantity"]["value"] == 0.83
    assert get(server, "Observation", patient=report["subject"]["reference"])["total"] == 4
    assert get(server, "ImagingStudy", identifier="ACC-99")["entry"][0]["resource"]["id"] == study["id"]


def test_a_resend_stores_nothing_new(server: FhirServer) -> None:
    push(server, RESULT)
    before = dict(server.resources)
    push(server, RESULT)
    assert server.resources == before


def test_a_revision_is_a_report_of_its_own_on_the_same_study(server: FhirServer) -> None:
    push(server, RESULT)
    push(server, REVIEWED)
    assert server.list_types() == [
        *["Device"],
        *["DiagnosticReport"] * 2,
        *["ImagingStudy"],
        *["Observation"] * 8,
        *["Patient"],
    ]
    reports = [one["resource"] for one in get(server, "DiagnosticReport")["entry"]]
    assert sorted(one["status"] for one in reports) == ["final", "preliminary"]


def test_a_patient_whom_the_hospital_knows_is_used(server: FhirServer) -> None:
    known = {"resourceType": "Patient", "id": "7", "identifier": [{"system": "urn:oid:1.2.3", "value": "PAT-4711"}]}
    server.resources["Patient/7"] = known
    push(server, replace(RESULT, film=replace(RESULT.film, issuer="1.2.3")))
    assert server.list_types().count("Patient") == 1
    assert get(server, "DiagnosticReport", patient="7")["total"] == 1


@pytest.mark.parametrize("name", HOSTILE_FILMS)
def test_malformed_headers_arrive_once(server: FhirServer, name: str) -> None:
    result = replace(RESULT, film=HOSTILE_FILMS[name])
    push(server, result)
    push(server, result)
    assert len(server.resources) == 8


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 504])
def test_trouble_of_the_server_is_a_delay(server: FhirServer, status: int) -> None:
    server.answers.append((status, b"<html>busy</html>"))
    with pytest.raises(DeliveryDelayed, match=f"127.0.0.1 answered {status}: no reason given"):
        push(server, RESULT)
    push(server, RESULT)
    assert len(server.resources) == 8


@pytest.mark.parametrize("status", [302, 400, 404, 409, 412, 422])
def test_a_refusal_is_for_good(server: FhirServer, status: int) -> None:
    issue = {"severity": "error", "code": "invalid", "details": {"text": "no such thing"}}
    outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
    server.answers.append((status, json.dumps(outcome).encode()))
    with pytest.raises(DeliveryRefused, match=f"answered {status}: invalid: no such thing"):
        push(server, RESULT)


def test_errors_hold_nothing_of_the_patient(server: FhirServer) -> None:
    text = "Patient JANE Doe (PAT-4711, 1960-05-04 or 19600504), order acc-99 of Gregory House:\n duplicate"
    outcome = {"resourceType": "OperationOutcome", "issue": [{"code": "duplicate", "diagnostics": text}]}
    server.answers.append((412, json.dumps(outcome).encode()))
    with pytest.raises(DeliveryRefused) as caught:
        push(server, RESULT)
    told = str(caught.value).lower()
    assert told.endswith(": duplicate") and "\n" not in told
    assert not [word for word in ("jane", "doe", "4711", "1960", "acc-99", "house", "gregory") if word in told]


@pytest.mark.parametrize(
    "body", [b"", b"<html>welcome</html>", b"[]", b'{"resourceType": "Bundle", "type": "transaction-response"}']
)
def test_a_page_that_says_ok_is_no_delivery(server: FhirServer, body: bytes) -> None:
    server.answers.append((200, body))
    with pytest.raises(DeliveryRefused, match="not as a FHIR server"):
        push(server, RESULT)


def test_nobody_there_is_a_delay() -> None:
    with pytest.raises(DeliveryDelayed, match="ConnectError"):
        send(bundle(RESULT), f"http://127.0.0.1:{find_port()}/fhir", 5)


@pytest.mark.parametrize("url", ["", "http://host:port/fhir", "ftp://host/fhir", "https:///fhir", "fhir"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(DeliveryRefused, match="no http or https URL"):
        send(bundle(RESULT), url, 5)


def test_a_certificate_that_nobody_trusts_is_not_accepted(tmp_path: Path) -> None:
    files = create_certificate(tmp_path, "receiver")
    assert files.certificate is not None and files.key is not None
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(files.certificate, files.key)
    with run_receiver(MllpReceiver(), own) as receiver, pytest.raises(DeliveryDelayed, match="ConnectError"):
        send(bundle(RESULT), f"https://127.0.0.1:{receiver.address[1]}/fhir", 5)
    assert receiver.messages == []


def test_an_invalid_bundle_does_not_leave(server: FhirServer) -> None:
    broken = bundle(RESULT)
    broken["entry"][-1]["resource"]["status"] = "foo"
    with pytest.raises(DeliveryRefused, match=r"DiagnosticReport\.status"):
        send(broken, server.url, 10)
    assert server.resources == {}


def test_the_token_comes_from_the_environment(server: FhirServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "s3cret"
    monkeypatch.delenv("HOSPITAL_TOKEN", raising=False)
    with pytest.raises(DeliveryDelayed, match="HOSPITAL_TOKEN has no token"):
        push(server, RESULT, token_variable="HOSPITAL_TOKEN")
    monkeypatch.setenv("HOSPITAL_TOKEN", "s3cret")
    push(server, RESULT, token_variable="HOSPITAL_TOKEN")
    assert len(server.resources) == 8
