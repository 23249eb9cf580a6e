"""The CapabilityStatement: what a reader of our resources may ask, for `GET /fhir/metadata`."""

from datetime import datetime

from chestai import RESEARCH_USE
from chestai.results.fhir.vocabulary import Resource

VERSION = "4.0.1"  # of FHIR: the endpoint answers in R4
SEARCHES: dict[str, tuple[str, str]] = {
    "_id": ("token", "The ID of a resource."),
    "identifier": ("token", "An identifier of a resource, as `system|value` or `value`."),
    "study": ("token", "A DICOM Study Instance UID."),
    "accession": ("token", "An Accession Number."),
    "patient": ("token", "The ID of a Patient, or a patient ID as `system|value`, or as `value` of any system."),
}
"""What each type is searched by: the kind of the parameter, and what it means."""
SERVED = ("DiagnosticReport", "Observation", "ImagingStudy", "Patient", "Device")


def build_capability(base_url: str, at: datetime, software_version: str) -> Resource:
    """
    Args:
        base_url: Of the server, such as `https://host/fhir`.
        at: When it was deployed, with a zone.
        software_version: Of the project.
    """
    parameters = [{"name": name, "type": kind, "documentation": meaning} for name, (kind, meaning) in SEARCHES.items()]
    interactions = [{"code": "read"}, {"code": "search-type"}]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": at.isoformat(),
        "kind": "instance",
        "description": f"What models found on chest films. {RESEARCH_USE}",
        "software": {"name": "ChestAI", "version": software_version},
        "implementation": {"description": "ChestAI", "url": base_url.rstrip("/")},
        "fhirVersion": VERSION,
        "format": ["application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "resource": [{"type": kind, "interaction": interactions, "searchParam": parameters} for kind in SERVED],
            }
        ],
    }
