"""Priors by C-FIND and C-MOVE: the right films come, and none of another patient; nothing goes out about them."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chestai.config.gateway import Destination
from chestai.results.film import film_id_of
from serve.gateway.db.models import DeliveryRow, FilmRow, PriorRequestRow, ResourceRow
from serve.gateway.intake.folder import Intake, gateway_folder
from tests.serve.gateway.priors.dicom_archive import TITLE, DicomArchive, run_archive
from tests.serve.gateway.priors.hospital import (
    ID,
    TODAY,
    ask,
    list_events,
    list_priors,
    make_earlier,
    run_hospital,
    send_current,
    wait_for_answer,
)
from tests.serve.gateway.site import Site, send_films, wait_for


@contextmanager
def run_all(folder: Path, archive: DicomArchive, title: str = TITLE) -> Iterator[Site]:
    with (
        run_archive(archive, title),
        run_hospital(folder, kind="dicom", address=f"127.0.0.1:{archive.port}", ae_title=title) as site,
    ):
        archive.destination = site.config.gateway.dicom.port
        yield site


def test_earlier_films_come_as_priors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    days = ("20200102", "20210102", "20220102", "20230102")
    archive = DicomArchive([make_earlier(seed, day, AccessionNumber="ACC-X") for seed, day in enumerate(days, 2)])
    archive.films += [
        make_earlier(10, "20250102"),  # later
        make_earlier(11, "20230601", Modality="CT"),
        make_earlier(12, "20230601", PatientID="PAT-12"),
        make_earlier(13, "", StudyDate=""),
    ]
    archive.is_loose = True
    to_nowhere = {"pacs": Destination(kind="dicom", address="127.0.0.1:9", ae_title="PACS", objects=("sr",))}
    with run_all(tmp_path, archive) as site, site.gateway() as gateway:
        image_id = send_current(site, gateway.port)
        site.config.gateway.destinations.update(to_nowhere)
        assert site.ask(f"/images/{image_id}/priors")["archive"]["state"] == "none"
        assert ask(site, image_id)["state"] == "waiting" == ask(site, image_id)["state"]
        state, found = wait_for_answer(site, image_id)
        assert (state["state"], state["films"], state["detail"]) == ("done", 3, None)
        assert found == ["2023-01-02", "2022-01-02", "2021-01-02"], "the newest three studies, newest first"
        assert len(site.ask("/studies")["studies"]) == 1 == site.ask("/studies/summary")["total"]
        assert site.ask("/studies", search=image_id[:12])["studies"][0]["image_id"] == image_id
        (fetched, *others) = list_priors(site)
        assert site.ask("/studies", search=fetched)["studies"] == [] and len(others) == 2
        assert site.ask(f"/images/{fetched}")["predictions"][0]["bucket"]
        moves = len(archive.moves)
        assert ask(site, image_id)["state"] == "waiting", "asked anew"
        assert wait_for_answer(site, image_id)[0] == state and len(archive.moves) == 2 * moves
        assert send_films(gateway.port, archive.films[3]) == [0], "the prior is sent to be read"
        wait_for(lambda: len(site.ask("/studies")["studies"]) == 2)
        wait_for(lambda: not Intake(gateway_folder(site.config)).waiting())
    assert [row.prior for row in site.rows(FilmRow)].count(True) == 2 == len(list_priors(site))
    sent = {row.film_id for row in site.rows(DeliveryRow)}
    assert (
        sent == {film_id_of(archive.films[3].SOPInstanceUID)} and {row.film_id for row in site.rows(ResourceRow)} > sent
    )
    assert all(
        row.film_id not in {one.film_id for one in site.rows(FilmRow) if one.prior} for row in site.rows(ResourceRow)
    )
    events = list_events(site, "film.fetched")
    assert [json.loads(row.detail)["new"] for row in events] == [True] * 3 + [False] * 3
    assert {json.loads(row.detail)["for"] for row in events} == {image_id}
    assert len(list_events(site, "priors.request")) == 3
    with site.database().engine.connect() as connection:
        dump = "\n".join(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]
    for secret in (ID, "ACC-X", "Doe^"):
        assert secret not in caplog.text and secret not in dump


@pytest.mark.slow
def test_a_film_of_another_patient_is_refused(tmp_path: Path) -> None:
    good, issued = make_earlier(2, "20200102"), make_earlier(3, "20190102", IssuerOfPatientID="OTHER")
    archive = DicomArchive([good, issued], sends_other=[make_earlier(4, "20200102", PatientID="PAT-4")])
    with run_all(tmp_path, archive) as site, site.gateway() as gateway:
        image_id = send_current(site, gateway.port, IssuerOfPatientID="OURS")
        ask(site, image_id)
        state, found = wait_for_answer(site, image_id)
        assert found == [] and state["films"] == 0 and state["detail"] == "1 refused: of another patient or study"
        archive.sends_other = []
        ask(site, image_id)
        state, found = wait_for_answer(site, image_id)
    assert (state["films"], state["detail"], found) == (1, None, ["2020-01-02"])


@pytest.mark.slow
def test_films_of_an_archive_that_names_itself_as_originator_are_priors(tmp_path: Path) -> None:
    archive = DicomArchive([make_earlier(2, TODAY)], originator=TITLE)
    with run_all(tmp_path, archive) as site, site.gateway() as gateway:
        image_id = send_current(site, gateway.port)
        ask(site, image_id)
        state, found = wait_for_answer(site, image_id)
    assert state["films"] == 1 and found == ["2024-03-01"] and len(list_priors(site)) == 1


@pytest.mark.slow
def test_what_the_archive_says_when_it_does_not_want(tmp_path: Path) -> None:
    archive = DicomArchive(status=0xC001)
    with run_all(tmp_path, archive) as site:
        with site.gateway() as gateway:
            image_id = send_current(site, gateway.port)
            ask(site, image_id)
            assert wait_for_answer(site, image_id)[0]["detail"] == "ARCHIVE refuses with status 0xC001"
            archive.status = 0xA700
            ask(site, image_id)
            state, _ = wait_for_answer(site, image_id)
        assert (state["state"], state["detail"]) == ("failed", "ARCHIVE is out of resources")
        assert len(archive.searches) == 1 + 3, "tried again"
        with site.gateway() as gateway:
            nameless = send_current(site, gateway.port, PatientID="")
            ask(site, nameless)
            assert wait_for_answer(site, nameless)[0]["detail"] == "the film has no patient ID"


@pytest.mark.slow
def test_a_request_waits_for_the_gateway(tmp_path: Path) -> None:
    archive = DicomArchive([make_earlier(2, "20200102")])
    with run_all(tmp_path, archive) as site:
        with site.gateway() as gateway:
            image_id = send_current(site, gateway.port)
        ask(site, image_id)
        with site.gateway():
            assert wait_for_answer(site, image_id)[0]["films"] == 1
    (row,) = site.rows(PriorRequestRow)
    assert (row.state, row.requested_by) == ("done", "anybody") and row.done_at is not None
