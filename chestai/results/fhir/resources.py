"""The resources of a study: Patient, Device, ImagingStudy, Observations, DiagnosticReport.

There is no Provenance: R4 gives it no identifier, so that a resend would make a second one. Observations name their
device, and the report its reviewers and the revision that it replaces.
"""

from collections.abc import Sequence

from chestai.results.fhir.device import build_device
from chestai.results.fhir.imaging_study import build_imaging_study
from chestai.results.fhir.observations import build_observations
from chestai.results.fhir.patient import build_patient
from chestai.results.fhir.report import build_report
from chestai.results.fhir.vocabulary import FindingCodes, Release, Resource, refer
from chestai.results.film_result import FilmResult
from chestai.results.result_set import check_belonging, find_time


def build_resources(
    results: Sequence[FilmResult],
    release: Release = "R4",
    codes: FindingCodes | None = None,
    patient_system: str | None = None,
) -> list[Resource]:
    """Builds what goes out about the films of a study; references are relative, as in `Patient/<id>`.

    IDs and identifiers are made from the film, the model, its version, the kind of resource and the revision, so that
    the same results give the same resources.

    Args:
        results: Of one study, patient and model version, each film once.
        release: R4 also suits R4B.
        codes: Finding -> system, code, display; a finding that is missing gets a code of our own system.
        patient_system: The system of the hospital's patient IDs; None to make one from the ID's issuer.

    Raises:
        ValueError: There are no results, or they do not belong together, or a film has no SOP Instance UID.
    """
    check_belonging(results)
    first = results[0]
    patient = build_patient(first.film, patient_system)
    device = build_device(first.model, first.version, release)
    study = build_imaging_study([result.film for result in results], patient, release)
    context: Resource = {"subject": refer(patient)}
    if first.film.studied_at is not None:
        context["effectiveDateTime"] = first.film.studied_at.date().isoformat()
    observations = []
    for result in results:
        origin = {"issued": find_time([result]).isoformat(), "device": refer(device), "derivedFrom": [refer(study)]}
        observations += build_observations(result, codes or {}, context | origin)
    context["issued"] = find_time(results).isoformat()
    report = build_report(results, context, study, observations, release)
    return [patient, device, study, *observations, report]
