"""From the wire to the readers' page: a film's numbers are everywhere those of the same file scored directly."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, Page
from pydicom.uid import DigitalXRayImageStorageForPresentation, JPEGLosslessSV1, generate_uid

from chestai.config.gateway import Destination
from chestai.imaging import preprocess
from chestai.model.registry import RegisteredModel
from chestai.model.runtimes import Runtime
from chestai.phantom import draw, plan
from chestai.results.fhir.checks import check_resource
from chestai.results.film import film_id_of
from serve.gateway.db.models import DeliveryRow, FilmRow
from serve.inference.predictor import load_model
from tests.serve.gateway.pacs import Pacs, run_pacs
from tests.serve.gateway.senders.fhir_server import run_fhir_server
from tests.serve.gateway.senders.mllp_server import MllpReceiver, run_receiver
from tests.serve.gateway.site import Site, run_site, send_films, wait_for
from tests.serve.gateway.test_gateway import find_probabilities, refers_to, to_pacs
from tests.serve.ui.site import Desk, poll
from tests.support.dicom import a_file, compressed
from tests.support.models import make_bundle

SIDE, WHITE = 512, 4095
FINEST = 16  # grey values of 12 bits within one of 8
MEANINGS = {"Pleural effusion": "Effusion"}  # what the codes of findings mean, where they have other names


def make_film(folder: Path, **elements: Any) -> bytes:
    """A phantom of 12 bits in JPEG lossless whose header says that the least value is white."""
    image = next(one for one in plan(40, SIDE, seed=12) if one.form == "grey")
    bright = draw(image)[0].astype(np.uint16) * FINEST
    bright += np.random.default_rng(5).integers(0, FINEST, bright.shape, np.uint16)
    identity = {"ViewPosition": "PA", "BodyPartExamined": "CHEST", "PatientName": "Doe^Jane", "StudyDate": "20201224"}
    uids = {name: generate_uid() for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
    about = {"SOPClassUID": DigitalXRayImageStorageForPresentation, "PhotometricInterpretation": "MONOCHROME1"}
    plain = a_file(WHITE - bright, **{**identity, **uids, **about, **elements})
    return compressed(folder, plain, gdcm.TransferSyntax.JPEGLosslessProcess14_1)


def score_directly(data: bytes) -> Mapping[str, float]:
    """The probabilities of a file by the model itself: no gateway, no endpoint, no database."""
    model = load_model(RegisteredModel("chestai", 1, make_bundle()), Runtime(), "cpu", threads=1)
    return model.score([preprocess.resize(preprocess.decode(data), model.size)])[0].probabilities


def test_numbers_are_those_of_the_file_scored_directly(browser: Browser, tmp_path: Path) -> None:
    data = make_film(tmp_path)
    film, expected = pydicom.dcmread(io.BytesIO(data)), score_directly(data)
    told = (film.file_meta.TransferSyntaxUID, film.PhotometricInterpretation, film.BitsStored)
    assert told == (JPEGLosslessSV1, "MONOCHROME1", 12)
    with run_pacs(Pacs()) as pacs, run_fhir_server() as ehr, run_receiver(MllpReceiver()) as ris:
        destinations = {
            "pacs": to_pacs(pacs.port, "sr"),
            "ehr": Destination(kind="fhir", url=ehr.url),
            "ris": Destination(kind="hl7", address=f"127.0.0.1:{ris.address[1]}"),
        }
        with run_site(tmp_path, destinations, "gateway.fhir=true", "state.keep_images=true") as site:
            with site.gateway() as gateway:
                assert send_films(gateway.port, film) == [0]
                wait_for(lambda: len(sent := site.rows(DeliveryRow)) == 3 and {one.state for one in sent} == {"sent"})
            (row,) = site.rows(FilmRow)
            assert row.film_id == film_id_of(film.SOPInstanceUID) and row.result["findings"]
            (report,) = pacs.reports
            assert refers_to(report, film.SOPInstanceUID)
            found = {
                "SR": find_probabilities(report),
                "sent FHIR": read_observations([*ehr.resources.values()]),
                "HL7": read_message(ris.messages[-1]),
                "served FHIR": read_observations(ask_observations(site)),
                "API": site.ask(f"/images/{row.image_id}")["predictions"][0]["probabilities"],
            }
            page = Desk(browser, site.url, {}).open(f"/ui/studies/{row.image_id}?renderer=cpu", reader=None)
            shown = read_page(page)
            page.screenshot(path=tmp_path / "page.png")
    for place, numbers in found.items():
        by_finding = {MEANINGS.get(name, name): value for name, value in numbers.items()}
        assert by_finding == pytest.approx(expected, abs=1e-5), place
    assert shown == {name: f"{value:.2f}" for name, value in expected.items()}


def ask_observations(site: Site) -> list[Any]:
    """The endpoint's own observations."""
    bundle = site.ask("/fhir/Observation")
    check_resource(bundle)
    return [entry["resource"] for entry in bundle["entry"]]


def read_observations(resources: list[Any]) -> dict[str, float]:
    """Finding -> probability, of FHIR resources."""
    observations = [one for one in resources if one["resourceType"] == "Observation" and "valueQuantity" in one]
    return {one["code"]["coding"][0]["display"]: one["valueQuantity"]["value"] for one in observations}


def read_message(message: str) -> dict[str, float]:
    """Finding -> probability, of an ORU^R01."""
    fields = [segment.split("|") for segment in message.split("\r") if segment.startswith("OBX|")]
    numbers = {one[3].split("^")[1]: float(one[5]) for one in fields if one[2] == "NM"}
    return {name: value for name, value in numbers.items() if name != "Triage score"}


def read_page(page: Page) -> dict[str, str]:
    """Finding -> probability, as the readers' page shows it beside the film."""
    poll(lambda: page.locator(".film-canvas[data-shown=true]").count(), "the film")
    poll(lambda: page.locator(".findings tbody tr").count(), "the findings")
    rows = page.locator(".findings tbody tr").all()
    return {
        row.locator("th").inner_text().split(",")[0].strip(): row.locator(".finding-number").inner_text()
        for row in rows
    }
