"""IDs of FHIR resources that lead nobody to a patient.

Patient and ImagingStudy have other IDs at the endpoint than in what goes to destinations, where servers give their own.
Those are made from the patient ID without a key, so that trying all IDs of a hospital would find it; these are keyed
hashes, and may stand in addresses, tables and the audit. A study UID that two patients share makes two studies.
"""

import json
from uuid import UUID

from serve.storage.pseudonyms import Pseudonyms

HIDDEN = "fhir"  # a kind of hashed names


def name_patient(system: str, value: str, pseudonyms: Pseudonyms) -> str:
    """The ID of the Patient with an identifier."""
    return _hide(pseudonyms, "Patient", system, value)


def name_study(study_id: str, patient_id: str, pseudonyms: Pseudonyms) -> str:
    """The ID of an ImagingStudy that has another one elsewhere, of a Patient of ours."""
    return _hide(pseudonyms, "ImagingStudy", study_id, patient_id)


def _hide(pseudonyms: Pseudonyms, *parts: str) -> str:
    digits = pseudonyms.make(HIDDEN, json.dumps(parts))
    assert digits is not None  # it hashes something
    return str(UUID(digits[:32]))
