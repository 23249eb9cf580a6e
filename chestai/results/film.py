"""A film as the systems of a hospital know it: which object it is, of which study and patient."""

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Self

from chestai.results.text import clean


@dataclass(frozen=True)
class Film:
    """The identity of a film, from its DICOM header. Texts are empty where the header says nothing.

    Attributes:
        sop_class, sop_instance, series, study: UIDs.
        patient_id: As in the header; never in a log, a metric or a path.
        issuer: Of the patient ID.
        patient_name: A DICOM person name, `family^given^middle^prefix^suffix` (PS3.5 Section 6.2.1).
        birth_date: None if not known or impossible.
        sex: M, F, O, or empty.
        accession: Accession Number of the order.
        studied_at: Study date and time as the header gives them, without a zone; None if not known or impossible.
        study_id, description: Of the study.
        referrer: A DICOM person name.
        modality: CR, DX or RG.
    """

    sop_class: str
    sop_instance: str
    series: str
    study: str
    patient_id: str = ""
    issuer: str = ""
    patient_name: str = ""
    birth_date: date | None = None
    sex: str = ""
    accession: str = ""
    studied_at: datetime | None = None
    study_id: str = ""
    description: str = ""
    referrer: str = ""
    modality: str = ""

    @classmethod
    def from_header(cls, header: Any) -> Self:
        """Reads a `pydicom.Dataset`, which need not have pixels."""
        day = _parse_date(_text(header, "StudyDate"))
        return cls(
            sop_class=_text(header, "SOPClassUID"),
            sop_instance=_text(header, "SOPInstanceUID"),
            series=_text(header, "SeriesInstanceUID"),
            study=_text(header, "StudyInstanceUID"),
            patient_id=_text(header, "PatientID"),
            issuer=_text(header, "IssuerOfPatientID"),
            patient_name=_text(header, "PatientName"),
            birth_date=_parse_date(_text(header, "PatientBirthDate")),
            sex=_text(header, "PatientSex").upper()[:1],
            accession=_text(header, "AccessionNumber"),
            studied_at=None if day is None else _add_time(day, _text(header, "StudyTime")),
            study_id=_text(header, "StudyID"),
            description=_text(header, "StudyDescription"),
            referrer=_text(header, "ReferringPhysicianName"),
            modality=_text(header, "Modality"),
        )

    def check_name(self) -> None:
        """
        Raises:
            ValueError: There is no SOP Instance UID. Results of such films would have the same identifiers.
        """
        if not clean(self.sop_instance):
            raise ValueError("the film has no SOP Instance UID: nothing names it")


def film_id_of(sop_instance: str) -> str:
    """SHA-256 of a SOP Instance UID, in hex: the name of a film in files, logs and tables."""
    return hashlib.sha256(sop_instance.encode()).hexdigest()


def _text(header: Any, keyword: str) -> str:
    """The first value of an element as text, without its padding; empty if there is none."""
    value = header.get(keyword)
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else None
    return "" if value is None else str(value).strip(" \0")


def _parse_date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _add_time(day: date, text: str) -> datetime:
    """The moment of a DICOM time, HHMMSS.FFFFFF whose later parts may be missing; midnight if it is impossible."""
    digits = text.partition(".")[0]
    try:
        clock = datetime.strptime(digits, "%H%M%S"[: len(digits)]).time()
    except ValueError:
        return datetime(day.year, day.month, day.day)
    return datetime.combine(day, clock)
