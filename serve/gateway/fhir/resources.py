"""The FHIR resources of a film as the endpoint has them: what goes to destinations, under names of its own."""

from collections.abc import Sequence

from chestai.results.fhir.bundle import rename_references
from chestai.results.fhir.imaging_study import build_imaging_study
from chestai.results.fhir.resources import build_resources
from chestai.results.fhir.vocabulary import Resource
from chestai.results.film import Film
from chestai.results.film_result import FilmResult
from chestai.results.standard_codes import FHIR_CODES
from serve.gateway.fhir.names import name_patient, name_study
from serve.storage.pseudonyms import Pseudonyms


def build_served(
    result: FilmResult, pseudonyms: Pseudonyms, films: Sequence[Film] = (), language: str | None = None
) -> list[Resource]:
    """Builds the resources of a film.

    Args:
        films: Of its study, this one among them, for the ImagingStudy; empty for this one alone.
        language: Of the draft of the impression; None for none.

    Raises:
        ValueError: The film has no SOP Instance UID.
    """
    patient, device, study, *others = build_resources(result, codes=FHIR_CODES, language=language)
    if films:
        study = build_imaging_study(films, patient, "R4")
    identifier = patient["identifier"][0]
    patient_id = name_patient(identifier["system"], identifier["value"], pseudonyms)
    study_id = name_study(study["id"], patient_id, pseudonyms)
    names = {
        f"Patient/{patient['id']}": f"Patient/{patient_id}",
        f"ImagingStudy/{study['id']}": f"ImagingStudy/{study_id}",
    }
    resources = [patient | {"id": patient_id}, device, study | {"id": study_id}, *others]
    return [rename_references(resource, names) for resource in resources]
