"""The FHIR resources of a film as the endpoint has them, with IDs that lead nobody to a patient.

Patient and ImagingStudy have other IDs here than in what goes to destinations, where servers give their own. Those are
made from the patient ID without a key, so that trying all IDs of a hospital would find it; these are keyed hashes, and
may stand in addresses, tables and the audit. A study UID that two patients share by mistake makes two studies.
"""

import json
from collections.abc import Sequence
from uuid import UUID

from chestai.results.fhir.bundle import rename_references
from chestai.results.fhir.imaging_study import build_imaging_study
from chestai.results.fhir.resources import build_resources
from chestai.results.fhir.vocabulary import Resource
from chestai.results.film import Film
from chestai.results.film_result import FilmResult
from chestai.results.standard_codes import FHIR_CODES
from serve.storage.pseudonyms import Pseudonyms

HIDDEN = "fhir"  # a kind of hashed names


def build_served(result: FilmResult, pseudonyms: Pseudonyms, films: Sequence[Film] = ()) -> list[Resource]:
    """Builds the resources of a film.

    Args:
        films: Of its study, this one among them, for the ImagingStudy; empty for this one alone.

    Raises:
        ValueError: The film has no SOP Instance UID.
    """
    patient, device, study, *others = build_resources([result], codes=FHIR_CODES)
    if films:
        study = build_imaging_study(films, patient, "R4")
    identifier = patient["identifier"][0]
    patient_id = name_patient(identifier["system"], identifier["value"], pseudonyms)
    study_id = _hide(pseudonyms, "ImagingStudy", study["id"], patient_id)
    names = {
        f"Patient/{patient['id']}": f"Patient/{patient_id}",
        f"ImagingStudy/{study['id']}": f"ImagingStudy/{study_id}",
    }
    resources = [patient | {"id": patient_id}, device, study | {"id": study_id}, *others]
    return [rename_references(resource, names) for resource in resources]


def name_patient(system: str, value: str, pseudonyms: Pseudonyms) -> str:
    """The ID of the Patient with an identifier."""
    return _hide(pseudonyms, "Patient", system, value)


def _hide(pseudonyms: Pseudonyms, *parts: str) -> str:
    digits = pseudonyms.make(HIDDEN, json.dumps(parts))
    assert digits is not None  # it hashes something
    return str(UUID(digits[:32]))
