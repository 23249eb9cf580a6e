"""Reads the header of a film: its identity, and what objects about it repeat. Never its pixels."""

import io
import warnings

import pydicom
from pydicom import Dataset, config

from chestai.imaging.dicom.header import check_preamble, is_dicom
from chestai.imaging.errors import Unreadable

KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "ReferringPhysicianName"),
    *("Modality", "Rows", "Columns", "Laterality", "ImageLaterality", "PatientOrientation"),
)


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
    if not is_dicom(data):
        raise Unreadable("not_an_image", "it is no DICOM file")
    check_preamble(data)
    try:
        header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=[*KEYWORDS])
        for keyword in KEYWORDS:
            header.get(keyword)  # decodes it, which may fail
    except Exception as error:  # pydicom raises many kinds, and quotes values in them
        raise Unreadable("undecodable", "the header is damaged") from error
    return header
