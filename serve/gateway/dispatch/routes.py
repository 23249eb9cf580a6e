"""Which destinations get what about a film, and in which order."""

from collections.abc import Iterable, Mapping

from chestai.config.gateway import Destination

REVISED = ("sr", "fhir", "hl7")  # a verdict changes neither picture nor segmentation


def list_kinds(destination: Destination) -> tuple[str, ...]:
    """What a destination takes: DICOM objects, a FHIR Bundle or an HL7 message."""
    return destination.objects if destination.kind in ("dicom", "stow") else (destination.kind,)


def list_deliveries(
    destinations: Mapping[str, Destination], made: Iterable[str], revision: int
) -> list[tuple[str, str]]:
    """The destinations and kinds of a result. made: the DICOM objects that there are of it."""
    there = {*made, "fhir", "hl7"}
    return [
        (name, kind)
        for name, destination in destinations.items()
        for kind in list_kinds(destination)
        if kind in there and (revision == 0 or kind in REVISED)
    ]


def list_objects(destinations: Mapping[str, Destination]) -> set[str]:
    """The DICOM objects that any destination takes."""
    kinds = (kind for destination in destinations.values() for kind in list_kinds(destination))
    return {*kinds} - {"fhir", "hl7"}
