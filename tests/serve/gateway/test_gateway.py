"""From the wire to the endpoint and back: films in, results out, each once and in order."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage, generate_uid

from chestai.config.gateway import Destination
from chestai.results.film import film_id_of
from serve.db.models import AuditRow, PredictionRow
from serve.gateway.db import deliveries
from serve.gateway.db.models import DeliveryRow, FilmRow
from serve.gateway.intake import scoring
from serve.gateway.intake.folder import Intake, gateway_folder
from tests.serve.gateway.pacs import Pacs, run_pacs
from tests.serve.gateway.senders.fhir_server import FhirServer, run_fhir_server
from tests.serve.gateway.senders.mllp_server import MllpReceiver, run_receiver
from tests.serve.gateway.site import Site, make_film, run_site, send_films, wait_for
from tests.support.dicom import written

DRAFT = "Borrador de un programa de investigación, no es un diagnóstico."


def to_pacs(port: int, *objects: str) -> Destination:
    return Destination(kind="dicom", address=f"127.0.0.1:{port}", ae_title="PACS", objects=objects)  # type: ignore[arg-type]


class Hospital:
    """A site with a PACS, a FHIR server and an HL7 receiver."""

    def __init__(self, site: Site, pacs: Pacs, ehr: FhirServer, his: MllpReceiver) -> None:
        self.site, self.pacs, self.ehr, self.his = site, pacs, ehr, his

    def rows(self, table: Any) -> list[Any]:
        return self.site.rows(table)

    def is_done(self, films: int) -> bool:
        return len(self.rows(FilmRow)) == films and all(row.state == "sent" for row in self.rows(DeliveryRow))


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    with ExitStack() as stack:
        pacs, ehr = stack.enter_context(run_pacs(Pacs())), stack.enter_context(run_fhir_server())
        his = stack.enter_context(run_receiver(MllpReceiver()))
        destinations = {
            "pacs": to_pacs(pacs.port, "sr", "sc", "seg"),
            "ehr": Destination(kind="fhir", url=ehr.url),
            "his": Destination(kind="hl7", address=f"127.0.0.1:{his.address[1]}"),
        }
        site = stack.enter_context(run_site(tmp_path, destinations, "report.text=true", "report.language=es"))
        yield Hospital(site, pacs, ehr, his)


def find_probabilities(report: Any) -> dict[str, float]:
    """Finding -> probability, of a structured report."""
    found, finding = {}, ""
    for item in walk(report):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if item.ValueType == "CODE" and name == "Finding":
            finding = item.ConceptCodeSequence[0].CodeMeaning
        if item.ValueType == "NUM" and name == "Certainty of Finding":
            found[finding] = float(item.MeasuredValueSequence[0].NumericValue) / 100
    return found


def walk(item: Any) -> Iterator[Any]:
    for child in item.get("ContentSequence") or []:
        yield child
        yield from walk(child)


def test_films_come_back_as_results(hospital: Hospital) -> None:
    study = generate_uid()
    films = [make_film(seed, study if seed < 2 else None) for seed in range(3)]
    with hospital.site.gateway() as gateway:
        assert send_films(gateway.port, *films) == [0, 0, 0]
        wait_for(lambda: hospital.is_done(3))
        assert send_films(gateway.port, *films) == [0, 0, 0]
        wait_for(lambda: Intake(gateway_folder(hospital.site.config)).waiting() == [])
    assert len(hospital.rows(FilmRow)) == 3 and len(hospital.pacs.reports) == 3
    assert {report.StudyInstanceUID for report in hospital.pacs.reports} == {one.StudyInstanceUID for one in films}
    assert len(hospital.his.messages) == 3 and hospital.ehr.list_types().count("DiagnosticReport") == 3
    assert all(DRAFT in message for message in hospital.his.messages)
    reports = [one for one in hospital.ehr.resources.values() if one["resourceType"] == "DiagnosticReport"]
    assert all(DRAFT in one["conclusion"] for one in reports)
    for film in films:
        direct = httpx.post(hospital.site.url + "/infer", content=written(film), trust_env=False).json()
        (report,) = [one for one in hospital.pacs.reports if refers_to(one, film.SOPInstanceUID)]
        (draft,) = [item for item in walk(report) if item.get("TextValue", "").startswith(DRAFT)]
        assert draft.ConceptNameCodeSequence[0].CodeMeaning == "Impression"
        told = find_probabilities(report)
        assert [*told.values()] == pytest.approx([*direct["probabilities"].values()], abs=1e-5)


def refers_to(report: Any, instance: str) -> bool:
    references = [item for item in walk(report) if "ReferencedSOPSequence" in item]
    return any(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == instance for item in references)


@pytest.mark.slow
def test_positive_films_have_a_picture_and_a_segmentation(hospital: Hospital) -> None:
    with hospital.site.gateway() as gateway:
        send_films(gateway.port, *[make_film(seed) for seed in range(3)])
        wait_for(lambda: hospital.is_done(3))
    positive = [row for row in hospital.rows(PredictionRow) if row.positives]
    assert positive, "no film of the test is positive"
    for sop_class in (SecondaryCaptureImageStorage, SegmentationStorage):
        assert len(hospital.pacs.of_class(sop_class)) == len(positive)


def test_films_that_are_not_scored_are_kept_out_with_their_reason(hospital: Hospital) -> None:
    films = [
        make_film(1, ViewPosition="LL"),
        make_film(2, BodyPartExamined="HAND"),
        make_film(3, PhotometricInterpretation="RGB"),
    ]
    with hospital.site.gateway() as gateway:
        assert send_films(gateway.port, *films) == [0, 0, 0]
        wait_for(lambda: hospital.is_done(3))
    found = {row.sop_instance: row for row in hospital.rows(FilmRow)}
    reasons = [found[film.SOPInstanceUID].reason for film in films]
    assert reasons == ["not_frontal", "not_a_chest", "colour"]
    assert hospital.pacs.came == [] and hospital.rows(DeliveryRow) == []


def test_films_that_cannot_be_handled_hold_up_no_other(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    endless, good = make_film(1, StudyInstanceUID="1." + "2" * 80), make_film(3)
    broken = [make_film(2) for _ in range(20)]  # more than the gateway takes at a time
    faulty = {written(film) for film in broken}
    read_header = scoring.read_header

    def fail_on_broken(data: bytes) -> Any:
        if data in faulty:
            raise KeyError("a fault of ours")
        return read_header(data)

    monkeypatch.setattr(scoring, "read_header", fail_on_broken)
    intake = Intake(gateway_folder(hospital.site.config))
    for film in (endless, *broken, good):
        intake.add(film.SOPInstanceUID, written(film))
    with hospital.site.gateway():
        wait_for(lambda: hospital.is_done(2))
    found = {row.film_id: row.reason for row in hospital.rows(FilmRow)}
    assert found == {film_id_of(endless.SOPInstanceUID): "undecodable", film_id_of(good.SOPInstanceUID): None}
    assert {film.film_id for film in intake.waiting()} == {film_id_of(film.SOPInstanceUID) for film in broken}


def test_a_verdict_makes_the_next_revision(hospital: Hospital) -> None:
    film = make_film(5)
    with hospital.site.gateway() as gateway:
        send_films(gateway.port, film)
        wait_for(lambda: hospital.is_done(1))
        (row,) = hospital.rows(FilmRow)
        finding = row.result["findings"][0][0]
        review = {"image_id": row.image_id, "verdicts": {finding: "FN"}}
        httpx.post(hospital.site.url + "/reviews", json=review, trust_env=False).raise_for_status()
        wait_for(lambda: len(hospital.pacs.reports) == 2 and hospital.is_done(1))
    first, second = hospital.pacs.reports
    assert (first.CompletionFlag, second.CompletionFlag) == ("PARTIAL", "COMPLETE")
    assert first.SOPInstanceUID != second.SOPInstanceUID
    states = [message.split("\r")[3].split("|")[25] for message in hospital.his.messages if "OBR" in message]
    assert states == ["P", "F"]
    assert [DRAFT in message for message in hospital.his.messages if "OBR" in message] == [True, False]
    assert hospital.ehr.list_types().count("DiagnosticReport") == 2


@pytest.mark.slow
def test_results_wait_for_a_destination_that_is_away(tmp_path: Path) -> None:
    with run_pacs(Pacs()) as reserved:
        port = reserved.port
    study, pacs = generate_uid(), Pacs(port=port)
    films = [make_film(seed, study) for seed in range(3)]
    with run_site(tmp_path, {"pacs": to_pacs(port, "sr")}) as site, site.gateway() as gateway:
        send_films(gateway.port, *films)
        hospital = Hospital(site, pacs, None, None)  # type: ignore[arg-type]
        wait_for(lambda: len(hospital.rows(DeliveryRow)) == 3)
        wait_for(lambda: any(row.attempts > 1 for row in hospital.rows(DeliveryRow)))
        with run_pacs(pacs):
            pacs.status = 0xA700  # up, but out of resources
            wait_for(lambda: any("out of resources" in str(row.error) for row in hospital.rows(DeliveryRow)))
            pacs.status = 0
            wait_for(lambda: hospital.is_done(3))
    order = [row.film_id for row in sorted(hospital.rows(DeliveryRow), key=lambda row: row.number)]
    came = [find_film(report, films) for report in pacs.reports]
    assert came == order and len(set(came)) == 3


def find_film(report: Any, films: list[Any]) -> str:
    (film,) = [film for film in films if refers_to(report, film.SOPInstanceUID)]
    return film_id_of(film.SOPInstanceUID)


@pytest.mark.slow
def test_what_a_receiver_refuses_is_given_up_and_can_be_tried_again(tmp_path: Path) -> None:
    pacs = Pacs(status=0xC000)
    with run_pacs(pacs), run_site(tmp_path, {"pacs": to_pacs(pacs.port, "sr")}) as site, site.gateway() as gateway:
        hospital = Hospital(site, pacs, None, None)  # type: ignore[arg-type]
        send_films(gateway.port, make_film(1))
        wait_for(lambda: [row.state for row in hospital.rows(DeliveryRow)] == ["dead"])
        (row,) = hospital.rows(DeliveryRow)
        assert row.error == "PACS refuses the object with status 0xC000"
        pacs.status = 0
        with site.database().write_session() as session:
            assert deliveries.retry_dead(session, "pacs") == 1
        wait_for(lambda: hospital.is_done(1))
    assert len(pacs.reports) == 1


@pytest.mark.slow
def test_films_wait_for_an_endpoint_that_is_away(tmp_path: Path) -> None:
    with run_site(tmp_path, {}) as site:
        pass
    film = make_film(1)
    with site.gateway() as gateway:
        assert send_films(gateway.port, film) == [0]
        intake = Intake(gateway_folder(site.config))
        assert [one.film_id for one in intake.waiting()] == [film_id_of(film.SOPInstanceUID)]


def test_everything_is_in_the_audit_and_nothing_names_the_patient(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    film = make_film(7, PatientName="Very^Secret")
    with hospital.site.gateway() as gateway:
        send_films(gateway.port, film)
        wait_for(lambda: hospital.is_done(1))
    film_id = film_id_of(film.SOPInstanceUID)
    events = [(row.actor, row.action) for row in hospital.rows(AuditRow) if row.object == film_id]
    assert events[:2] == [("AE MODALITY", "film.received"), ("gateway", "film.scored")]
    assert len([action for _, action in events if action == "film.sent"]) == len(hospital.rows(DeliveryRow))
    with hospital.site.database().engine.connect() as connection:
        dump = "\n".join(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]
    for secret in ("PAT-7", "ACC-7", "Secret"):
        assert secret not in caplog.text and secret not in dump
