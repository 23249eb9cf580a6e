"""A hospital whose archive has earlier films of a patient."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydicom import Dataset

from chestai.config.gateway import DicomListener, Priors
from serve.db.models import AuditRow, ImageRow
from serve.gateway.db.models import FilmRow
from tests.serve.gateway.priors.dicom_archive import TITLE
from tests.serve.gateway.site import MODALITY, Site, make_film, run_site, send_films, wait_for
from tests.serve.support.http_server import find_port

TODAY = "20240301"
ID = "PAT-1"  # of the patient


def make_earlier(seed: int, day: str, **elements: Any) -> Dataset:
    """A film of the patient of another day."""
    return make_film(seed, **{"StudyDate": day, "PatientID": ID, "Modality": "DX", **elements})


def make_current(**elements: Any) -> Dataset:
    return make_earlier(1, TODAY, **elements)


@contextmanager
def run_hospital(folder: Path, **archive: Any) -> Iterator[Site]:
    """Serves an endpoint that knows of an archive while the block runs; its gateway listens at `config`'s port."""
    words = "{" + ", ".join(f"{name}: '{value}'" for name, value in archive.items()) + "}"
    with run_site(folder, {}, f"gateway.priors={words}") as site:
        listener = DicomListener(port=find_port(), callers=(MODALITY, TITLE))
        changes = {"dicom": listener, "priors": Priors.model_validate(archive)}
        gateway = site.config.gateway.model_copy(update=changes)
        yield Site(site.url, site.config.model_copy(update={"gateway": gateway}))


def send_current(site: Site, port: int, **elements: Any) -> str:
    """Sends a film of today, and returns its ID at the endpoint."""
    film = make_current(**elements)
    assert send_films(port, film) == [0]
    wait_for(lambda: any(row.sop_instance == film.SOPInstanceUID for row in site.rows(FilmRow)))
    (row,) = [row for row in site.rows(FilmRow) if row.sop_instance == film.SOPInstanceUID]
    assert row.image_id is not None
    return str(row.image_id)


def ask(site: Site, image_id: str) -> Any:
    """Asks for priors, and returns the state of the request."""
    return httpx.post(f"{site.url}/images/{image_id}/priors", trust_env=False).raise_for_status().json()


def wait_for_answer(site: Site, image_id: str) -> tuple[Any, list[str]]:
    """Waits until a request is over. Returns its state, and the days of the priors."""
    wait_for(lambda: site.ask(f"/images/{image_id}/priors")["archive"]["state"] != "waiting", 60)
    found = site.ask(f"/images/{image_id}/priors")
    return found["archive"], [prior["studied_on"] for prior in found["priors"]]


def list_priors(site: Site) -> list[str]:
    return sorted(row.image_id for row in site.rows(ImageRow) if row.prior)


def list_events(site: Site, action: str) -> list[AuditRow]:
    return [row for row in site.rows(AuditRow) if row.action == action]
