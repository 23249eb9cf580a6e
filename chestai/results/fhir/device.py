"""The Device that made a result: a version of a model."""

from chestai import RESEARCH_USE
from chestai.results.fhir.vocabulary import MODEL, Release, Resource, identify, make_concept, make_uuid


def build_device(model: str, version: int, release: Release) -> Resource:
    device: Resource = {
        "resourceType": "Device",
        "id": make_uuid("Device", model, version),
        "identifier": [identify("device", model, version)],
        "status": "active",
        "version": [{"value": str(version)}],
        "note": [{"text": RESEARCH_USE}],
    }
    if release == "R4":
        return device | {"type": make_concept(MODEL), "deviceName": [{"name": model, "type": "user-friendly-name"}]}
    name = {"value": model, "type": "user-friendly-name"}
    return device | {"type": [make_concept(MODEL)], "name": [name]}
