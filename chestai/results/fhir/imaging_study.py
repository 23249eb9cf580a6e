"""The ImagingStudy that films belong to: the DICOM study with the series and objects that we scored."""

import re
from collections.abc import Sequence

from chestai.results.fhir.vocabulary import (
    ACCESSION,
    DICOM,
    DICOM_UID,
    Release,
    Resource,
    identify,
    make_concept,
    make_uuid,
    refer,
)
from chestai.results.film import Film
from chestai.results.person_name import parse_names
from chestai.results.text import clean, shorten
from chestai.results.uid import is_uid

LONGEST_DESCRIPTION = 1024  # characters
UNKNOWN_MODALITY = "OT"  # "Other" of DICOM's CID 29


def build_imaging_study(films: Sequence[Film], patient: Resource, release: Release) -> Resource:
    first = films[0]
    identifier = name_uid(first.study) if is_uid(first.study) else identify("study", first.study or first.sop_instance)
    study: Resource = {
        "resourceType": "ImagingStudy",
        "id": make_uuid("ImagingStudy", identifier["value"]),
        "identifier": [identifier],
        "status": "available",
        "subject": refer(patient),
    }
    if accession := clean(first.accession):
        study["identifier"].append({"type": make_concept(ACCESSION), "value": accession})
    if first.studied_at is not None:
        study["started"] = first.studied_at.date().isoformat()  # a FHIR time needs a zone, which headers lack
    if description := shorten(first.description, LONGEST_DESCRIPTION):
        study["description"] = description
    if referrers := parse_names(first.referrer):
        study["referrer"] = {"display": referrers[0].full}
    if series := _build_series(films, release):
        study["series"] = series
        study["numberOfSeries"] = len(series)
        study["numberOfInstances"] = sum(len(one["instance"]) for one in series)
    return study


def name_uid(uid: str) -> Resource:
    """A DICOM UID as an identifier, in the form that FHIR asks for in `ImagingStudy.identifier`."""
    return {"system": DICOM_UID, "value": f"urn:oid:{uid}"}


def _build_series(films: Sequence[Film], release: Release) -> list[Resource]:
    """The series of the films; those whose UIDs are none cannot be named and are left out."""
    series: dict[str, Resource] = {}
    for film in films:
        if not all(is_uid(uid) for uid in (film.series, film.sop_instance, film.sop_class)):
            continue
        one = series.setdefault(
            film.series, {"uid": film.series, "modality": _code_modality(film.modality, release), "instance": []}
        )
        sop_class = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{film.sop_class}"}
        one["instance"].append({"uid": film.sop_instance, "sopClass": sop_class})
    return list(series.values())


def _code_modality(modality: str, release: Release) -> Resource:
    code = modality if re.fullmatch(r"[A-Z]{2,16}", modality) else UNKNOWN_MODALITY
    coding = {"system": DICOM, "code": code}
    return coding if release == "R4" else {"coding": [coding]}
