"""Priors by QIDO-RS and WADO-RS, and what is not fetched, not taken, and not logged."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from chestai.config.gateway import Priors
from chestai.errors import UserError
from serve.gateway.intake.folder import Intake, gateway_folder
from serve.gateway.priors.archive import Wanted
from serve.gateway.priors.dicomweb import DicomWeb
from serve.gateway.priors.errors import ArchiveRefuses
from serve.gateway.priors.retrieval import Retrieval
from tests.serve.gateway.priors.hospital import (
    ID,
    ask,
    list_priors,
    make_current,
    make_earlier,
    run_hospital,
    send_current,
    wait_for_answer,
)
from tests.serve.gateway.priors.web_archive import WebArchive, run_archive
from tests.serve.gateway.site import Site, send_films


@contextmanager
def run_all(folder: Path, archive: WebArchive, **settings: Any) -> Iterator[Site]:
    with run_archive(archive), run_hospital(folder, kind="dicomweb", url=archive.url, **settings) as site:
        yield site


def test_earlier_films_come_as_priors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ARCHIVE_TOKEN", "secret")
    archive = WebArchive([make_earlier(seed, f"20{seed + 10}0102") for seed in range(2, 7)], token="secret")
    archive.films += [make_earlier(8, "20230601", Modality="CT"), make_earlier(9, "20230601", PatientID="PAT-9")]
    lateral = make_earlier(10, "20160102", ViewPosition="LL", StudyInstanceUID=archive.films[4].StudyInstanceUID)
    archive.films.append(lateral)
    with run_all(tmp_path, archive, token_variable="ARCHIVE_TOKEN") as site, site.gateway() as gateway:
        assert send_films(gateway.port, archive.films[3]) == [0], "it is here already, as a new film"
        image_id = send_current(site, gateway.port)
        ask(site, image_id)
        state, found = wait_for_answer(site, image_id)
        assert (state["state"], state["films"], state["detail"]) == ("done", 3, "1 not shown: not frontal")
        assert found == ["2016-01-02", "2015-01-02", "2014-01-02"]
        assert archive.retrieved == 3 and len(list_priors(site)) == 3, "two are shown, one is kept out"
        ask(site, image_id)
        assert wait_for_answer(site, image_id)[0]["films"] == 3 and archive.retrieved == 3, "nothing twice"
    assert ID not in caplog.text and any(ID in one for one in archive.requests)


@pytest.mark.slow
def test_what_was_not_asked_for_is_dropped(tmp_path: Path) -> None:
    archive = WebArchive([make_earlier(2, "20200102")])
    other = make_earlier(3, "20200102", StudyInstanceUID=archive.films[0].StudyInstanceUID)
    other.PatientID = "PAT-3"
    tomogram = make_earlier(4, "20200102", StudyInstanceUID=archive.films[0].StudyInstanceUID)
    tomogram.SOPClassUID = tomogram.file_meta.MediaStorageSOPClassUID = CTImageStorage
    with run_all(tmp_path, archive) as site, site.gateway() as gateway:
        image_id = send_current(site, gateway.port)
        for wrong in (other, tomogram, make_current()):
            archive.sends_other = [wrong]
            ask(site, image_id)
            state, found = wait_for_answer(site, image_id)
            assert (state["detail"], found) == ("1 refused: of another patient or study", [])
    assert list_priors(site) == [] and len([*gateway_folder(site.config).glob("*/**/*.dcm")]) == 1


@pytest.mark.slow
def test_what_the_reader_hears_of_an_archive_in_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive = WebArchive([make_earlier(2, "20200102")])
    with run_all(tmp_path, archive) as site, site.gateway() as gateway:
        image_id = send_current(site, gateway.port)
        for status, asked in ((403, 3), (404, 1), (503, 3)):
            archive.status = status
            archive.requests.clear()
            ask(site, image_id)
            state, _ = wait_for_answer(site, image_id)
            assert (state["state"], state["detail"]) == ("failed", f"127.0.0.1 answers {status}")
            assert len(archive.requests) == asked
    assert ID not in caplog.text


def test_a_film_over_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    large = make_earlier(2, "20200102", Rows=1024, Columns=1024, PixelData=bytes(2**21))
    wanted = Wanted("x", "1.2.3", ID, "", date(2024, 3, 1))
    with run_archive(WebArchive([large])) as archive:
        web = DicomWeb(Priors(kind="dicomweb", url=archive.url), Intake(tmp_path), 2**20)
        (study,) = web.find(wanted, 3)
        retrieval = Retrieval("x", wanted.is_of_patient, frozenset({study.uid}), lambda _: None)
        with pytest.raises(ArchiveRefuses, match=r"127\.0\.0\.1 answers with more than 1 MiB"):
            web.fetch(study, retrieval)
    assert retrieval.films == set() and Intake(tmp_path).waiting() == []


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    settings = Priors(kind="dicomweb", url="https://archive.example/web", tls_authority=str(tmp_path / "ca.pem"))
    with pytest.raises(UserError, match=r"gateway\.priors\.tls_authority=.*ca\.pem cannot be used"):
        DicomWeb(settings, Intake(tmp_path), 2**20)
