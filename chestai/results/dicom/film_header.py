"""Reads the header of a film: its identity, and what objects about it repeat. Never its pixels."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom import Dataset, config

from chestai.imaging.dicom.header import check_preamble, is_dicom
from chestai.imaging.errors import Unreadable
from chestai.results.film import Film

KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "ReferringPhysicianName"),
    *("Modality", "Rows", "Columns", "Laterality", "ImageLaterality", "PatientOrientation"),
)
START = 512  # bytes of a file, by which it is known


def silence_pydicom() -> None:
    """Makes pydicom take values as they are: its warnings quote them, and patients belong in no log."""
    config.settings.reading_validation_mode = config.IGNORE
    config.settings.writing_validation_mode = config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom")


def read_header(data: bytes) -> Dataset:
    """Reads the `KEYWORDS` of a DICOM file.

    Raises:
        Unreadable: It is none, or its header is damaged.
    """
    return _read(io.BytesIO(data))


def read_film(path: Path) -> Film:
    """Reads whose film a file on disk is, without its pixels.

    Raises:
        Unreadable: As `read_header`.
        FileNotFoundError: It is gone.
    """
    with path.open("rb") as file:
        return Film.from_header(_read(file))


def _read(file: BinaryIO) -> Dataset:
    start = file.read(START)
    file.seek(0)
    if not is_dicom(start):
        raise Unreadable("not_an_image", "it is no DICOM file")
    check_preamble(start)
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*KEYWORDS])
        for keyword in KEYWORDS:
            header.get(keyword)  # decodes it, which may fail
    except Exception as error:  # pydicom raises many kinds, and quotes values in them
        raise Unreadable("undecodable", "the header is damaged") from error
    return header
