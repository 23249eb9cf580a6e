"""A phantom film with a header, and what a model found on it."""

import io
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, dcmread
from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from chestai.imaging.preprocess import Grey
from chestai.phantom.film import draw
from chestai.phantom.roster import plan
from chestai.results.dicom.instance import Device
from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult, ReviewedFinding
from tests.support.dicom import header

SIDE = 256
DEVICE = Device("ChestAI at St. Elsewhere", "2.25.1234567")
SCORED = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
FINDINGS = (
    FindingResult("Pneumothorax", 0.912345678, 0.4),
    FindingResult("Cardiomegaly", 0.2, 0.5),
    FindingResult("Enlarged_Cardiomediastinum", 0.5, 0.5),
    FindingResult("Nodule", 0.99, None),
)
REVIEW = ReviewedFinding("Pneumothorax", "FP", "Ödön Ö^Reader", SCORED + timedelta(hours=30))


def film_header(**elements: Any) -> Dataset:
    """The header of a film without pixels; elements replace its own, also by what the standard does not allow."""
    own = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SeriesInstanceUID": "1.2.3.9",
        "PatientID": "p1",
        "PatientName": "Müller^Jörg",
        "PatientBirthDate": "19501224",
        "PatientSex": "F",
        "PatientComments": "a secret",
        "StudyDate": "20201224",
        "StudyTime": "101112.123",
        "StudyID": "S1",
        "AccessionNumber": "A1",
        "PatientOrientation": ["L", "F"],
    }
    dataset = header(np.zeros((SIDE, SIDE), np.uint16), 12, **{**own, **elements})
    del dataset.PixelData
    return dataset


def result_of(dataset: Dataset) -> FilmResult:
    """A result with two positive findings, one negative and one without an operating point."""
    film = Film.from_header(dataset)
    return FilmResult(film, FINDINGS, "urgent", 0.8765, "chestai-densenet", 7, SCORED, synthetic=True)


def reviewed(result: FilmResult) -> FilmResult:
    return replace(result, reviews=(REVIEW,), revision=1)


def with_positives(result: FilmResult, count: int) -> FilmResult:
    findings = [FindingResult(f"Finding {number}", 0.75, 0.5) for number in range(count)]
    return replace(result, findings=tuple(findings))


def evidence_of(result: FilmResult) -> NDArray[np.float32]:
    """A map for each finding: one warm cell on a faint ground, each in a place of its own."""
    maps = np.random.default_rng(0).normal(0, 0.1, (len(result.findings), 8, 8)).astype(np.float32)
    for number, plane in enumerate(maps):
        plane[2 + number % 4, 5 - number % 4] = 4
    return maps


def grey_film() -> Grey:
    """uint8 (SIDE, SIDE), a film that a computer drew."""
    return draw(plan(16, SIDE, 0)[0])[0]


def write(instance: Dataset) -> bytes:
    """A file, as PS3.10 demands it."""
    file = io.BytesIO()
    instance.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read_back(instance: Dataset | None) -> Dataset:
    """The object as another program reads it; fails on a file or a value that is not valid."""
    assert instance is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = dcmread(io.BytesIO(write(instance)))
        for element in dataset.iterall():
            assert not element.tag.is_private
            _check_value(element)
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    return dataset


def _check_value(element: DataElement) -> None:
    """Raises ValueError for a value that its VR does not allow."""
    if element.VR not in ("SQ", "OB", "OW"):
        for value in element.value if element.VM > 1 else [element.value]:
            text = value is not None and element.VR in ("IS", "DS", "DA", "TM", "DT")
            validate_value(element.VR, str(value) if text else value, RAISE)
