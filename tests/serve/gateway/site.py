"""A hospital on loopback: a modality that sends films, our endpoint and gateway, and who gets the results."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
from pydicom.uid import DigitalXRayImageStorageForPresentation as DX
from pydicom.uid import generate_uid
from pynetdicom import AE
from sqlalchemy import select

from chestai.config import load as conf
from chestai.config.gateway import Destination, DicomListener, Gateway
from chestai.config.schema import Config
from serve.db.database import Database, database_url
from serve.gateway.gateway import running
from serve.gateway.intake.receiver import Receiver
from tests.serve.support.forgery import make_films
from tests.serve.support.http_server import run_server
from tests.serve.support.local import local_app
from tests.support.dicom import a_file

MODALITY, PACS = "MODALITY", "PACS"


@dataclass
class Site:
    """The endpoint of a hospital, and the gateway's settings."""

    url: str
    config: Config

    @contextmanager
    def gateway(self) -> Iterator[Receiver]:
        """Runs the gateway while the block runs."""
        with running(self.config) as receiver:
            yield receiver

    def database(self) -> Database:
        return Database(database_url(self.config))

    def rows(self, table: Any) -> list[Any]:
        with self.database().read_session() as session:
            return list(session.scalars(select(table)))

    def ask(self, path: str, **parameters: Any) -> Any:
        return httpx.get(self.url + path, params=parameters, trust_env=False).raise_for_status().json()


@contextmanager
def run_site(folder: Path, destinations: dict[str, Destination], *overrides: str) -> Iterator[Site]:
    """Serves an endpoint while the block runs; the gateway is started by `Site.gateway`."""
    with run_server(local_app(folder, False, *overrides)) as (host, port):
        config = conf.load([f"lake={folder / 'lake'}", "cluster=laptop", *overrides])
        settings = Gateway(
            endpoint=f"http://{host}:{port}",
            dicom=DicomListener(port=0, callers=(MODALITY, PACS)),
            destinations=destinations,
            retry_seconds=0.1,
            max_retry_seconds=0.5,
        )
        yield Site(settings.endpoint, config.model_copy(update={"gateway": settings}))


def make_film(seed: int, study: str | None = None, **elements: Any) -> pydicom.Dataset:
    """A film of 12 bits of a patient of its own, on which the endpoint's network has an opinion."""
    identity = {
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
        "PatientName": f"Doe^{seed}",
        "StudyDate": "20201224",
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": study or generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "PatientID": f"PAT-{seed}",
        "AccessionNumber": f"ACC-{seed}",
    }
    pixels = make_films()[seed].astype(np.uint16) << 4
    return pydicom.dcmread(io.BytesIO(a_file(pixels, **{**identity, **elements})))


def send_films(port: int, *films: pydicom.Dataset, title: str = MODALITY) -> list[int | None]:
    """Sends films in one association. Returns the status of each; None where there was no answer."""
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.network_timeout = entity.dimse_timeout = 20
    for syntax in dict.fromkeys(film.file_meta.TransferSyntaxUID for film in films):
        entity.add_requested_context(DX, [syntax])
    association = entity.associate("127.0.0.1", port, ae_title="CHESTAI")
    if not association.is_established:
        return [None] * len(films)
    try:
        return [association.send_c_store(one).get("Status") if association.is_established else None for one in films]
    finally:
        association.release()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits until a condition holds; fails after the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)
