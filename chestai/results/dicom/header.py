"""The part of a film's header that objects about it repeat, made valid whatever the film's own header is like."""

import contextlib
import copy
import re
from datetime import datetime
from typing import Any

from pydicom import Dataset

from chestai.results.dicom.text import LONG_STRING, SHORT_STRING, clean_name, clean_text
from chestai.results.film_result import FilmResult

UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
NAMES = ("PatientName", "ReferringPhysicianName")
# Identifiers: a shortened one might be another patient's, and all may be empty (type 2).
IDENTIFIERS = {"PatientID": LONG_STRING, "AccessionNumber": SHORT_STRING, "StudyID": SHORT_STRING}
DATES = ("PatientBirthDate", "StudyDate")

UID = re.compile(r"\d+(\.\d+)+")
TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?")
AXES = re.compile(r"[APRLHF]")  # the direction of a row or column


def clean_header(header: Dataset, result: FilmResult) -> Dataset:
    """What the Patient, General Study and General Image modules demand (PS3.3 C.7), in UTF-8.

    Values that the standard does not allow are left empty, names that are too long are cut. Nothing else of the film,
    and nothing private, goes on.

    Returns:
        A data set with every element of type 1 and 2 of these modules; Rows, Columns, Laterality and Patient
        Orientation only where the film has them.

    Raises:
        ValueError: The film has no valid UIDs, or is not the result's.
    """
    clean = Dataset()
    clean.SpecificCharacterSet = "ISO_IR 192"
    for keyword in UIDS:
        setattr(clean, keyword, _uid(header, keyword))
    if clean.SOPInstanceUID != result.film.sop_instance:
        raise ValueError("the header is of another film than the result")
    for keyword in NAMES:
        setattr(clean, keyword, clean_name(_text(header, keyword)))
    for keyword, limit in IDENTIFIERS.items():
        setattr(clean, keyword, _identifier(header, keyword, limit))
    for keyword in DATES:
        setattr(clean, keyword, _date(header, keyword))
    clean.StudyTime = _one_of(header, "StudyTime", TIME)
    clean.PatientSex = _one_of(header, "PatientSex", re.compile("[MFO]"))
    clean.Modality = _one_of(header, "Modality", re.compile("CR|DX|RG")) or "DX"
    _add_issuer(clean, header)
    _add_geometry(clean, header)
    return clean


def without_names(header: Dataset) -> Dataset:
    """A copy without the names: highdicom prints a name that it finds unusual, and names belong in no log."""
    nameless = copy.deepcopy(header)
    for keyword in NAMES:
        setattr(nameless, keyword, "")
    return nameless


def _add_issuer(clean: Dataset, header: Dataset) -> None:
    """Issuer of Patient ID, without which an ID may be another patient's (type 3)."""
    issuer = _identifier(header, "IssuerOfPatientID", LONG_STRING)
    if issuer and clean.PatientID:
        clean.IssuerOfPatientID = issuer


def _add_geometry(clean: Dataset, header: Dataset) -> None:
    for keyword in ("Rows", "Columns"):
        size = _first(header, keyword)
        if isinstance(size, int) and 0 < size < 2**16:
            setattr(clean, keyword, size)
    if side := _one_of(header, "Laterality", re.compile("[RL]")):
        clean.Laterality = side
    axes = [str(axis).strip() for axis in _values(header, "PatientOrientation")]
    if len(axes) == 2 and all(AXES.fullmatch(axis) for axis in axes):
        clean.PatientOrientation = axes


def _uid(header: Dataset, keyword: str) -> str:
    uid = _text(header, keyword)
    if not UID.fullmatch(uid) or len(uid) > 64:
        raise ValueError(f"the film has no valid {keyword}")
    return uid


def _identifier(header: Dataset, keyword: str, limit: int) -> str:
    """An identifier as it is; empty if it is not one valid value as it is."""
    text = _text(header, keyword) if len(_values(header, keyword)) == 1 else ""
    return text if text == clean_text(text, limit) else ""


def _date(header: Dataset, keyword: str) -> str:
    text = _text(header, keyword)
    with contextlib.suppress(ValueError):
        return text if datetime.strptime(text, "%Y%m%d").strftime("%Y%m%d") == text else ""
    return ""


def _one_of(header: Dataset, keyword: str, pattern: re.Pattern[str]) -> str:
    text = _text(header, keyword).upper()
    return text if pattern.fullmatch(text) else ""


def _text(header: Dataset, keyword: str) -> str:
    value = _first(header, keyword)
    return "" if value is None else str(value).strip(" \0")


def _first(header: Dataset, keyword: str) -> Any:
    return next(iter(_values(header, keyword)), None)


def _values(header: Dataset, keyword: str) -> list[Any]:
    """The values of an element; none if it is absent, or so damaged that pydicom cannot read it."""
    with contextlib.suppress(Exception):  # damaged elements raise anything
        element = header[keyword]
        return list(element.value) if element.VM > 1 else [element.value]
    return []
