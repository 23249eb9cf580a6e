"""What all objects about a film have in common: identity, equipment, dates and the notice."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from highdicom.enum import ContentQualificationValues
from pydicom import Dataset

from chestai.results.dicom.codes import coding_scheme
from chestai.results.dicom.header import NAMES
from chestai.results.dicom.text import LONG_STRING, clean_text
from chestai.results.dicom.uids import Kind, instance_uid, series_uid
from chestai.results.film_result import FilmResult

MANUFACTURER = "ChestAI"
SERIES_NUMBERS: dict[Kind, int] = {"sr": 9801, "sc": 9802, "seg": 9803}  # above those that modalities use
SERIES_TITLES: dict[Kind, str] = {
    "sr": "ChestAI report (research use only)",
    "sc": "ChestAI heatmaps (research use only)",
    "seg": "ChestAI evidence maps (research use only)",
}


@dataclass(frozen=True)
class Device:
    """The installation that makes the objects: its name, at most 64 characters, and its UID."""

    name: str
    uid: str


def describe_instance(result: FilmResult, kind: Kind, device: Device) -> dict[str, Any]:
    """The arguments that every class of highdicom takes.

    Dates and times are those of the result, in the zone in which it gives them: a rebuilt object equals the first.
    """
    made = find_moment(result, kind)
    film = result.film.sop_instance
    return {
        "series_instance_uid": series_uid(film, result.model, result.version, kind),
        "series_number": SERIES_NUMBERS[kind],
        "series_description": SERIES_TITLES[kind],
        "sop_instance_uid": instance_uid(film, result.model, result.version, kind, result.revision),
        "instance_number": 1 + (result.revision if kind == "sr" else 0),
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": clean_text(device.name, LONG_STRING) or MANUFACTURER,
        "device_serial_number": device.uid,
        "software_versions": name_model(result),
        "content_date": made.date(),
        "content_time": made.time(),
        "content_qualification": ContentQualificationValues.RESEARCH,
        "coding_schemes": [coding_scheme()],
    }


def finish(instance: Dataset, header: Dataset) -> None:
    """Adds what highdicom leaves out, and replaces the clock's time by the result's.

    Args:
        header: From `clean_header`.
    """
    if "Rows" in instance:
        instance.PatientOrientation = header.get("PatientOrientation", "")  # type 2C: empty where unknown
    for keyword in NAMES:
        setattr(instance, keyword, header[keyword].value)
    instance.InstanceCreationDate, instance.InstanceCreationTime = instance.ContentDate, instance.ContentTime
    for equipment in instance.ContributingEquipmentSequence:
        equipment.ContributionDateTime = f"{instance.ContentDate}{instance.ContentTime}"
    if "DateOfSecondaryCapture" in instance:
        instance.DateOfSecondaryCapture, instance.TimeOfSecondaryCapture = instance.ContentDate, instance.ContentTime


def find_moment(result: FilmResult, kind: Kind) -> datetime:
    """When the content of an object came to be: with the latest verdict in a report, else with the score."""
    return result.changed_at.astimezone(result.at.tzinfo) if kind == "sr" else result.at


def name_model(result: FilmResult) -> str:
    """The model's name and version, at most 64 characters."""
    version = f" {result.version}"
    return clean_text(result.model, LONG_STRING - len(version)) + version
