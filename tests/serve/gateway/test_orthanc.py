"""Beside a real Orthanc: it sends films by C-STORE and STOW-RS, and finds the results in the same studies (QIDO-RS)."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest

from chestai.config.gateway import Destination
from chestai.results.dicom.uids import Kind
from chestai.results.film import film_id_of
from serve.db.models import PredictionRow
from serve.gateway.db.models import DeliveryRow, FilmRow
from tests.serve.gateway.orthanc import DICOM_PORT, HTTP_PORT, Orthanc, run_orthanc
from tests.serve.gateway.site import PACS, Site, make_film, run_site, wait_for
from tests.support.dicom import written
from tests.support.network import own_network

pytestmark = pytest.mark.slow

STUDIES, PATIENCE_S = 20, 10.0
OBJECTS: tuple[Kind, ...] = ("sr", "sc", "seg")


class Hospital:
    """Orthanc as the PACS of our endpoint and gateway."""

    def __init__(self, site: Site, pacs: Orthanc) -> None:
        self.site, self.pacs = site, pacs

    def store(self, film: str) -> None:
        """Orthanc sends a film by C-STORE."""
        self.pacs.post("/modalities/chestai/store", json={"Resources": [film], "Synchronous": True})

    def stow(self, film: str) -> None:
        """Orthanc sends a film by STOW-RS."""
        self.pacs.post("/dicom-web/servers/chestai/stow", json={"Resources": [film], "Synchronous": True})

    def find_results(self, film: pydicom.Dataset) -> list[str] | None:
        """The modalities of the results that the endpoint has of a film; None before it is scored."""
        rows = [row for row in self.site.rows(FilmRow) if row.film_id == film_id_of(film.SOPInstanceUID)]
        if not rows:
            return None
        assert rows[0].reason is None, rows[0].detail
        positives = [row.positives for row in self.site.rows(PredictionRow) if row.image_id == rows[0].image_id]
        return ["SR", *(["OT", "SEG"] if positives[0] else [])]

    def has_results(self, film: pydicom.Dataset) -> bool:
        results = self.find_results(film)
        return results is not None and self.pacs.find_modalities(film.StudyInstanceUID) == sorted(["DX", *results])


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    destinations = {
        "pacs": Destination(
            kind="dicom", address=f"127.0.0.1:{DICOM_PORT}", ae_title=PACS, objects=OBJECTS, commitment=True
        ),
        "web": Destination(kind="stow", url=f"http://127.0.0.1:{HTTP_PORT}/dicom-web", objects=OBJECTS),
    }
    with ExitStack() as stack:
        stack.enter_context(own_network())
        site = stack.enter_context(run_site(tmp_path, destinations, "gateway.stow=true"))
        gateway = stack.enter_context(site.gateway())
        yield Hospital(site, stack.enter_context(run_orthanc(tmp_path / "orthanc", gateway.port, site.url)))


def test_results_come_back_into_the_studies(hospital: Hospital) -> None:
    ways: list[Callable[[str], None]] = [hospital.store, hospital.stow]
    films = [(make_film(seed), ways[seed % 2]) for seed in range(2 * STUDIES)]
    sent, seconds = [], []
    for film, send in films:
        orthanc_id = hospital.pacs.upload(written(film))
        sent.append((orthanc_id, send))
        started = time.monotonic()
        send(orthanc_id)
        wait_for(lambda film=film: hospital.has_results(film), PATIENCE_S)  # type: ignore[misc]
        seconds.append(time.monotonic() - started)
    print(f"results after {sorted(seconds)[len(seconds) // 2]:.2f} s (median), {max(seconds):.2f} s (slowest)")
    pictures = [film for film, _ in films if len(hospital.find_results(film) or ()) == 3]
    assert len(pictures) >= STUDIES / 2, "too few films have positive findings"
    for orthanc_id, send in sent:
        send(orthanc_id)
    wait_for(lambda: {row.state for row in hospital.site.rows(DeliveryRow)} == {"committed", "sent"})
    by_destination = {(row.destination, row.state) for row in hospital.site.rows(DeliveryRow)}
    assert by_destination == {("pacs", "committed"), ("web", "sent")}, "Orthanc keeps what it was sent"
    assert len(hospital.site.rows(FilmRow)) == len(films) and all(hospital.has_results(film) for film, _ in films)
