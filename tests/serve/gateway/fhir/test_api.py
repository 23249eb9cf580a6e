"""The gateway's films as FHIR: what is found, read and searched."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydicom.uid import generate_uid
from sqlalchemy import select

from chestai.clock import now
from chestai.config import load as conf
from chestai.results.fhir.capability import SERVED
from chestai.results.fhir.checks import check_resource
from chestai.results.fhir.vocabulary import Resource
from serve.api.app import create_app
from serve.api.services import Services
from serve.gateway.db.models import FilmRow, ResourceRow, RevisionRow
from serve.gateway.db.retention import FilmRetention
from tests.serve.gateway.fhir.client import SERVER, ask, find, find_code, get, write_token
from tests.serve.gateway.recorded import FINDINGS, Recorded
from tests.serve.gateway.site import Site, make_film, run_site, send_films, wait_for


def test_every_resource_is_found_by_what_names_it(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("PAT-1", "1.2.3")
    recorded.add("PAT-1", "1.2.3")
    recorded.add("P|2,$", "1.2.4", IssuerOfPatientID="CLINIC")
    counts = {kind: len(find(app, kind)) for kind in SERVED}
    assert counts == {"DiagnosticReport": 3, "Observation": 9, "ImagingStudy": 2, "Patient": 2, "Device": 1}
    for kind in SERVED:
        for resource in find(app, kind):
            assert ask(app, f"{kind}/{resource['id']}") == resource
            assert find(app, kind, _id=resource["id"]) == [resource]
            for identifier in resource["identifier"]:
                found = find(app, kind, identifier=write_token(identifier))
                assert resource in found and all(identifier in one["identifier"] for one in found)
                assert resource in find(app, kind, identifier=write_token(identifier).partition("|")[2])
                assert find(app, kind, identifier=write_token({**identifier, "system": "urn:other"})) == []


def test_searches_by_patient_study_and_accession(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("PAT-1", "1.2.3")
    recorded.add("PAT-1", "1.2.3")
    recorded.add("PAT-2", "1.2.4")
    patient = find(app, "Patient", patient="PAT-1")[0]

    def count(kind: str = "DiagnosticReport", **parameters: str) -> int:
        return len(find(app, kind, **parameters))

    assert count(patient="PAT-1") == 2 and count(patient="PAT-2") == 1 and count(patient="PAT-3") == 0
    for name in (patient["id"], f"Patient/{patient['id']}", f"{SERVER}/fhir/Patient/{patient['id']}"):
        assert count(patient=name) == 2
    assert count(patient=write_token(patient["identifier"][0])) == 2 and count(patient="urn:other|PAT-1") == 0
    assert count(study="1.2.3") == count(study="urn:oid:1.2.3") == count(study="urn:dicom:uid|urn:oid:1.2.3") == 2
    assert count(study="1.2") == count(study="urn:other|1.2.3") == count(study="no uid") == 0
    assert count(accession="ACC-2") == count(accession="|ACC-2") == 1 and count(accession="urn:other|ACC-2") == 0
    assert count(study="1.2.3", patient="PAT-2") == 0 and count(study="1.2.4", patient="PAT-2") == 1
    assert count("ImagingStudy", patient="PAT-1") == count("Device", patient="PAT-1") == 1
    assert count("Observation", accession="ACC-3") == 1 + len(FINDINGS)
    for report in find(app, "DiagnosticReport", patient="PAT-1"):
        assert report["subject"] == {"reference": f"Patient/{patient['id']}"}


def test_references_lead_to_resources(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("PAT-1", "1.2.3")
    recorded.add("PAT-1", "1.2.3")
    report, _ = find(app, "DiagnosticReport")
    observation = ask(app, report["result"][1]["reference"])
    assert observation["valueQuantity"]["value"] == FINDINGS[0][1]
    assert ask(app, observation["device"]["reference"])["version"] == [{"value": "3"}]
    study = ask(app, report["imagingStudy"][0]["reference"])
    assert study["numberOfInstances"] == 2, "of all its films"
    assert ask(app, study["subject"]["reference"])["identifier"][0]["value"] == "PAT-1"


def test_pages_have_each_resource_once(app: FastAPI, recorded: Recorded) -> None:
    for number in range(3):
        recorded.add("PAT-1", f"1.2.{number}")
    every = [one["id"] for one in find(app, "Observation", patient="PAT-1")]
    listed, target, pages = [], "Observation?patient=PAT-1&_count=4", 0
    while target:
        bundle = ask(app, target)
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        assert links["self"] == f"{SERVER}/fhir/{target}" and "total" not in bundle
        listed += [entry["resource"]["id"] for entry in bundle["entry"]]
        target, pages = links.get("next", "").removeprefix(f"{SERVER}/fhir/"), pages + 1
        recorded.add("PAT-2", "1.2.9")
    assert listed == every == sorted({*every}) and len(every) == 9 and pages == 3
    assert ask(app, "Observation", _count=10**30, study="1.2.1")["total"] == 3
    empty = ask(app, "Patient", patient="nobody")
    assert empty["total"] == 0 and [link["relation"] for link in empty["link"]] == ["self"]


def test_a_revision_stays_what_it_was(app: FastAPI, recorded: Recorded) -> None:
    film = recorded.add("PAT-1", "1.2.3")
    reports: dict[str, Resource] = {}
    for verdict, reviewer, status in (
        (None, "", "preliminary"),
        ("TP", "rita", "final"),
        ("FP", "sam", "amended"),
        ("withdrawn", "sam", "amended"),
        ("withdrawn", "rita", "preliminary"),
    ):
        if verdict is not None:
            recorded.review(film, verdict, reviewer=reviewer)  # type: ignore[arg-type]
        found = {one["id"]: one for one in find(app, "DiagnosticReport", study="1.2.3")}
        (new,) = found.keys() - reports.keys()
        assert found[new]["status"] == status and reports.items() <= found.items()
        if reports:
            replaced = found[new]["extension"][0]["valueReference"]["identifier"]
            assert replaced == [*reports.values()][-1]["identifier"][0]
        reports[new] = found[new]
    lasting = write_token(reports[new]["identifier"][1])
    assert len(find(app, "DiagnosticReport", identifier=lasting)) == 5
    first, second, third, *_ = [ask(app, one["result"][1]["reference"]) for one in reports.values()]
    assert "note" not in first and len(second["note"]) == 1 and len(third["note"]) == 2
    assert len(find(app, "Patient")) == len(find(app, "ImagingStudy")) == 1


def test_patients_are_not_mixed_up(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("7", "1.2.3", IssuerOfPatientID="A")
    recorded.add("7", "1.2.4", IssuerOfPatientID="B")
    recorded.add("8", "1.2.4")  # in a study of another patient, by mistake
    recorded.add("", "1.2.5")
    recorded.add("", "1.2.6")
    patients = find(app, "Patient")
    assert len(patients) == len({one["id"] for one in patients}) == 5
    for patient in patients:
        (report,) = find(app, "DiagnosticReport", patient=write_token(patient["identifier"][0]))
        (study,) = find(app, "ImagingStudy", patient=patient["id"])
        assert report["subject"] == study["subject"] == {"reference": f"Patient/{patient['id']}"}
        assert study["numberOfInstances"] == 1
    assert len(find(app, "ImagingStudy", study="1.2.4")) == 2
    assert len(find(app, "DiagnosticReport", patient="7")) == 2, "a value without a system is of any system"


def test_a_patient_is_as_the_newest_film_says(app: FastAPI, recorded: Recorded) -> None:
    for name in ("Doe^Jane", "Roe^Jane"):
        recorded.add("PAT-1", "1.2.3", PatientName=name)
    (patient,) = find(app, "Patient")
    assert patient["name"][0]["family"] == "Roe"


def test_flag_only_shows_the_bucket_alone(app: FastAPI, recorded: Recorded) -> None:
    film = recorded.add("PAT-1", "1.2.3")
    recorded.review(film, "TP")
    hidden = [one["id"] for one in find(app, "Observation") if "valueQuantity" in one]
    services: Services = app.state.services
    modes = services.config.serve.modes.model_copy(update={"flag_only": True})
    serve = services.config.serve.model_copy(update={"modes": modes})
    flags = create_app(replace(services, config=services.config.model_copy(update={"serve": serve})))
    text = "".join(json.dumps(ask(flags, kind)) for kind in SERVED)
    assert "urgent" in text and len(hidden) == 4
    assert not [word for word in ("Cardiomegaly", "Hernia", "0.83", "triage-score", *hidden) if word in text]
    assert ask(flags, "Observation", _count=2)["total"] == 2
    assert {find_code(get(flags, f"Observation/{name}"), 404) for name in hidden} == {"unknown_resource"}


def test_reports_end_with_a_draft_where_it_is_wanted(app: FastAPI, recorded: Recorded) -> None:
    film_id = recorded.add("PAT-1", "1.2.3")

    def conclude(*settings: str, flag_only: bool = False) -> list[str]:
        services: Services = app.state.services
        modes = services.config.serve.modes.model_copy(update={"flag_only": flag_only})
        serve = services.config.serve.model_copy(update={"modes": modes})
        report = conf.load(settings).report
        config = services.config.model_copy(update={"serve": serve, "report": report})
        found = find(create_app(replace(services, config=config)), "DiagnosticReport")
        return sorted((one["conclusion"] for one in found), key=len)

    wanted = ("report.text=true", "report.language=es")
    ((plain,), (drafted,)) = conclude(), conclude(*wanted)
    assert drafted.startswith(plain) and "El modelo sugiere cardiomegalia." in drafted.removeprefix(plain)
    assert conclude(*wanted, flag_only=True) == conclude(flag_only=True)
    recorded.review(film_id, "FP")
    assert len(conclude(*wanted)) == 2 and "sugiere" not in next(one for one in conclude(*wanted) if "reviewed" in one)


def test_what_is_unknown_is_not_found(app: FastAPI, recorded: Recorded) -> None:
    recorded.add("PAT-1", "1.2.3")
    patient = find(app, "Patient")[0]["id"]
    for path in (
        f"Patient/{uuid4()}",
        "Patient/PAT-1",
        f"Device/{patient}",
        f"Patient/{patient.upper()}",
        "Patient/\0",
    ):
        assert find_code(get(app, path), 404) == "unknown_resource"
    for path in ("Practitioner", f"Practitioner/{patient}", "patient", "\0"):
        assert find_code(get(app, path), 404) == "unknown_type"


def test_retention_removes_what_was_told(app: FastAPI, recorded: Recorded) -> None:
    film = recorded.add("PAT-1", "1.2.3")
    recorded.review(film, "TP")
    (patient,) = find(app, "Patient")
    assert FilmRetention(recorded.database, recorded.intake, recorded.files, 1.0).purge(now()) == 1
    assert all(find(app, kind) == [] for kind in SERVED)
    assert find_code(get(app, f"Patient/{patient['id']}"), 404) == "unknown_resource"
    with recorded.database.read_session() as session:
        assert not [row for table in (FilmRow, ResourceRow, RevisionRow) for row in session.scalars(select(table))]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with run_site(tmp_path, {}, "gateway.fhir=true") as site:
        yield site


def ask_site(site: Site, kind: str, **parameters: Any) -> list[Resource]:
    bundle = site.ask(f"/fhir/{kind}", **parameters)
    check_resource(bundle)
    return [entry["resource"] for entry in bundle.get("entry", [])]


def test_films_from_the_wire_are_read_as_fhir(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    caplog.set_level("WARNING", "httpx")  # this client logs its own requests
    study = generate_uid()
    films = [make_film(seed, study if seed else None, PatientID=f"SECRET-{min(seed, 1)}") for seed in range(3)]
    with site.gateway() as gateway:
        assert send_films(gateway.port, *films) == [0, 0, 0]
        wait_for(lambda: len(ask_site(site, "DiagnosticReport")) == 3)
        reports = ask_site(site, "DiagnosticReport", patient="SECRET-1")
        assert len(reports) == 2 and {one["status"] for one in reports} == {"preliminary"}
        assert len(ask_site(site, "DiagnosticReport", study=study)) == 2
        (report,) = ask_site(site, "DiagnosticReport", accession="ACC-0")
        assert site.ask(f"/fhir/DiagnosticReport/{report['id']}") == report
        with site.database().read_session() as session:
            row = session.scalars(select(FilmRow).where(FilmRow.sop_instance == films[0].SOPInstanceUID)).one()
        assert row.result is not None
        observations = [site.ask(f"/fhir/{one['reference']}") for one in report["result"]]
        numbers = [one["valueQuantity"]["value"] for one in observations[1:]]
        assert numbers == pytest.approx([value for _, value, _ in row.result["findings"]], abs=1e-5)
        review = {"image_id": row.image_id, "verdicts": {row.result["findings"][0][0]: "FN"}}
        httpx.post(site.url + "/reviews", json=review, trust_env=False).raise_for_status()
        wait_for(lambda: len(ask_site(site, "DiagnosticReport", accession="ACC-0")) == 2)
    both = {one["status"]: one for one in ask_site(site, "DiagnosticReport", accession="ACC-0")}
    assert both["preliminary"] == report and "FN" in str(site.ask(f"/fhir/{both['final']['result'][1]['reference']}"))
    unknown = httpx.get(f"{site.url}/fhir/Patient/{quote('SECRET-0')}", trust_env=False)
    assert unknown.status_code == 404
    with site.database().engine.connect() as connection:
        dump = "\n".join(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]
    assert "SECRET" not in caplog.text and "SECRET" not in dump
