"""Films by STOW-RS: stored for the gateway, each part with its own answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, generate_uid

from chestai.results.film import film_id_of
from serve.db.models import ImageRow, WorklistRow
from serve.gateway.db.models import FilmRow
from serve.gateway.intake.folder import Intake, gateway_folder
from serve.gateway.intake.stow import MAX_PARTS, split_parts
from tests.serve.gateway.site import Site, make_film, run_site, send_films, wait_for
from tests.support.dicom import written

RELATED = 'multipart/related; type="application/dicom"; boundary=edge'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with run_site(tmp_path, {}, "gateway.stow=true") as found:
        yield found


def store(site: Site, *parts: bytes, study: str | None = None, kind: str = RELATED) -> httpx.Response:
    body = b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    path = "/dicomweb/studies" if study is None else f"/dicomweb/studies/{study}"
    headers = {"Content-Type": kind}
    return httpx.post(site.url + path, content=body + b"--edge--\r\n", headers=headers, trust_env=False)


def reasons(response: httpx.Response) -> list[int]:
    return [item["00081197"]["Value"][0] for item in response.json().get("00081198", {}).get("Value", [])]


def intake_of(site: Site) -> Intake:
    return Intake(gateway_folder(site.config))


def test_a_dicomweb_client_stores_films_and_the_gateway_scores_them(site: Site) -> None:
    study = generate_uid()
    films = [make_film(seed, study, PatientSex="F", PatientAge="061Y") for seed in range(2)]
    for film in films:
        film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    answer = DICOMwebClient(site.url + "/dicomweb").store_instances(films)
    assert {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence} == {
        film.SOPInstanceUID for film in films
    }
    with site.gateway():
        wait_for(lambda: len(site.rows(FilmRow)) == 2)
    rows, leads = site.rows(ImageRow), sum(row.leads for row in site.rows(WorklistRow))
    assert [(row.study_id, row.view, row.sex, row.age_years) for row in rows] == [(study, "PA", "F", 61.0)] * 2
    assert len({row.patient_key for row in rows}) == 2 and not any("PAT" in str(row.patient_key) for row in rows)
    assert leads == 1
    (listed,) = site.ask("/studies")["studies"]
    assert (listed["study_id"], listed["images"]) == (study, 2)


def test_the_same_film_by_stow_and_by_c_store_is_one(site: Site) -> None:
    film = make_film(1)
    assert [store(site, written(film)).status_code for _ in range(2)] == [200, 200]
    with site.gateway() as gateway:
        assert send_films(gateway.port, film) == [0]
    assert len([*gateway_folder(site.config).glob("*/**/*.dcm")]) == 1


def test_each_part_has_its_answer(site: Site) -> None:
    film, tomogram = make_film(1), make_film(2)
    tomogram.SOPClassUID = CTImageStorage
    response = store(site, written(film), written(tomogram), b"no DICOM", written(film)[:100])
    assert response.status_code == 202 and response.headers["content-type"] == "application/dicom+json"
    assert reasons(response) == [0x0122, 0xC000, 0xC000]
    (stored,) = response.json()["00081199"]["Value"]
    assert stored["00081155"]["Value"] == [film.SOPInstanceUID]
    assert [one.film_id for one in intake_of(site).waiting()] == [film_id_of(film.SOPInstanceUID)]


def test_a_film_of_another_study_than_the_address_is_refused(site: Site) -> None:
    film = make_film(1)
    response = store(site, written(film), study="1.2.3")
    assert response.status_code == 409 and reasons(response) == [0xA900]
    assert store(site, written(film), study=film.StudyInstanceUID).status_code == 200


def test_a_full_disk_is_said_of_each_film(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(*_: Any) -> bool:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Intake, "add", is_full)
        response = store(site, written(make_film(1)))
    assert response.status_code == 409 and reasons(response) == [0xA700]


@pytest.mark.parametrize("kind", ["application/dicom", 'multipart/related; type="image/png"; boundary=edge', "text/x"])
def test_other_bodies_are_refused(site: Site, kind: str) -> None:
    response = store(site, written(make_film(1)), kind=kind)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_an_endpoint_without_stow_says_so(tmp_path: Path) -> None:
    with run_site(tmp_path, {}) as site:
        response = store(site, written(make_film(1)))
    assert (response.status_code, response.json()["code"]) == (403, "stow_off")


def part(content: bytes) -> bytes:
    return b"--edge\r\n\r\n" + content + b"\r\n"


def test_parts_keep_their_bytes() -> None:
    contents = [b"", b"\r\n", b"--edg", bytes(range(256)) * 3, b"\r\n--edge"[:-1]]
    assert split_parts(RELATED, b"".join(map(part, contents)) + b"--edge--") == contents


@pytest.mark.parametrize(
    "body",
    [b"", b"--edge--", part(b"x"), part(b"x")[:-4], b"--other\r\n\r\nx\r\n--other--", part(b"") * (MAX_PARTS + 1)],
)
def test_cut_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="part"):
        split_parts(RELATED, body + (b"--edge--" if body.count(b"--edge") > MAX_PARTS else b""))


def test_a_film_is_stored_as_it_came(site: Site) -> None:
    data = written(make_film(1))
    store(site, data)
    (waiting,) = intake_of(site).waiting()
    assert waiting.path.read_bytes() == data and pydicom.dcmread(waiting.path).PatientID == "PAT-1"


def test_films_of_their_usual_size_are_taken(site: Site) -> None:
    film = make_film(1, Rows=1024, Columns=1024, PixelData=bytes(2 * 2**20))
    answer = store(site, written(film))
    assert answer.status_code == 200 and len(intake_of(site).waiting()) == 1
