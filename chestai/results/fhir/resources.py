"""The resources of a film: Patient, Device, ImagingStudy, Observations, DiagnosticReport.

There is no Provenance: R4 gives it no identifier, so that a resend would make a second one. Observations name their
device, and the report its reviewers and the revision that it replaces.
"""

from chestai.results.fhir.device import build_device
from chestai.results.fhir.imaging_study import build_imaging_study
from chestai.results.fhir.observations import build_observations
from chestai.results.fhir.patient import build_patient
from chestai.results.fhir.report import build_report
from chestai.results.fhir.vocabulary import FindingCodes, Release, Resource, refer
from chestai.results.film_result import FilmResult


def build_resources(
    result: FilmResult, release: Release = "R4", codes: FindingCodes | None = None, language: str | None = None
) -> list[Resource]:
    """Builds what goes out about a film; references are relative, as in `Patient/<id>`.

    IDs and identifiers are made from the film, the model, its version, the kind of resource and the revision, so that
    the same result gives the same resources.

    Args:
        release: R4 also suits R4B.
        codes: Finding -> system, code, display; a finding that is missing gets a code of our own system.
        language: Of the draft of the impression in the report's conclusion; None for none.

    Raises:
        ValueError: The film has no SOP Instance UID.
    """
    film = result.film
    film.check_name()
    patient = build_patient(film)
    device = build_device(result.model, result.version, release)
    study = build_imaging_study([film], patient, release)
    context: Resource = {"subject": refer(patient)}
    if film.studied_at is not None:
        context["effectiveDateTime"] = film.studied_at.date().isoformat()
    context["issued"] = result.changed_at.isoformat()
    origin = {"device": refer(device), "derivedFrom": [refer(study)]}
    observations = build_observations(result, codes or {}, context | origin)
    report = build_report(result, context, study, observations, release, language)
    return [patient, device, study, *observations, report]
