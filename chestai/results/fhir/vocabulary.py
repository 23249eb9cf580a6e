"""Codes and identifiers of our resources: standard ones where they are certain, else those of our own systems."""

import json
from collections.abc import Mapping
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

Release = Literal["R4", "R5"]
Resource = dict[str, Any]
"""A resource or a part of one, as FHIR's JSON."""
Code = tuple[str, str, str]
"""System, code, display."""
FindingCodes = Mapping[str, Code]

CODES = "urn:chestai:codes"
"""Our code system: canonical names of findings, buckets of triage, and the names below."""
IDENTIFIERS = "urn:chestai:identifiers"
"""The system of our identifiers, which are UUIDs made from what they name."""
DICOM_UID = "urn:dicom:uid"
DICOM = "http://dicom.nema.org/resources/ontology/DCM"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
HL7 = "http://terminology.hl7.org/CodeSystem"

REPORT: Code = (LOINC, "18748-4", "Diagnostic imaging study")
RADIOLOGY: Code = (f"{HL7}/v2-0074", "RAD", "Radiology")
IMAGING: Code = (f"{HL7}/observation-category", "imaging", "Imaging")
ACCESSION: Code = (f"{HL7}/v2-0203", "ACSN", "Accession ID")
POSITIVE: Code = (f"{HL7}/v3-ObservationInterpretation", "POS", "Positive")
NEGATIVE: Code = (f"{HL7}/v3-ObservationInterpretation", "NEG", "Negative")
INDETERMINATE: Code = (f"{HL7}/v3-ObservationInterpretation", "IND", "Indeterminate")
TRIAGE: Code = (CODES, "triage", "Triage bucket")
SCORE: Code = (CODES, "triage-score", "Triage score")
BAND: Code = (CODES, "band", "Frequency of the finding among validation images with a like score, 95 % interval")
BAND_IMAGES: Code = (CODES, "band-images", "Validation images with a like score")
FILM: Code = (CODES, "film", "SOP Instance UID of the film")
REVIEW: Code = (CODES, "review", "What reviewers say of the finding")
MODEL: Code = (CODES, "model", "Model of chest films")

_NAMESPACE = uuid5(NAMESPACE_URL, IDENTIFIERS)


def make_uuid(*parts: str | int) -> str:
    """The same UUID for the same parts, in every process."""
    return str(uuid5(_NAMESPACE, json.dumps(parts)))


def identify(*parts: str | int) -> Resource:
    """An identifier of ours."""
    return {"system": IDENTIFIERS, "value": make_uuid(*parts)}


def make_concept(code: Code) -> Resource:
    system, name, display = code
    return {"coding": [{"system": system, "code": name, "display": display}], "text": display}


def code_finding(finding: str, codes: FindingCodes) -> Code:
    """The code that a caller knows, else ours: the canonical name of the finding."""
    return codes.get(finding) or (CODES, finding, finding.replace("_", " "))


def refer(resource: Resource) -> Resource:
    """A reference to a resource, which is relative to a server that has it under our ID."""
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}
