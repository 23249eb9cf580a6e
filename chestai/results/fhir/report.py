"""The DiagnosticReport: what was found on a film, in words, with the observations behind it."""

from collections.abc import Sequence

from chestai.results.fhir.vocabulary import (
    RADIOLOGY,
    REPORT,
    Release,
    Resource,
    identify,
    make_concept,
    make_uuid,
    refer,
)
from chestai.results.film_result import FilmResult
from chestai.results.notices import list_notices
from chestai.results.report_text.impression import write_outgoing
from chestai.results.review_status import find_opinion, find_reviews, find_stage
from chestai.results.text import clean

REPLACES = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"


def build_report(
    result: FilmResult,
    context: Resource,
    study: Resource,
    observations: Sequence[Resource],
    release: Release,
    language: str | None = None,
) -> Resource:
    """
    Args:
        context: Subject and times, as the observations have them.
        language: Of the draft of the impression, see `write_outgoing`; None for none.
    """
    revision = result.revision
    lasting = ("report", result.film.sop_instance, result.model, result.version)
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "id": make_uuid(*lasting, revision),
        "identifier": [identify(*lasting, revision), identify(*lasting)],
        "status": find_stage(result),
        "category": [make_concept(RADIOLOGY)],
        "code": make_concept(REPORT) | {"text": "Triage of chest films by a model"},
        **context,
        "result": [refer(observation) for observation in observations],
        "imagingStudy" if release == "R4" else "study": [refer(study)],
        "conclusion": _write_conclusion(result, language),
    }
    if revision:
        earlier = {"type": "DiagnosticReport", "identifier": identify(*lasting, revision - 1)}
        report["extension"] = [{"url": REPLACES, "valueReference": earlier}]
    reviewers = dict.fromkeys(clean(review.reviewer) for review in result.reviews)
    if names := [name for name in reviewers if name]:
        report["resultsInterpreter"] = [{"display": name} for name in names]
    return report


def _write_conclusion(result: FilmResult, language: str | None) -> str:
    """A few lines: the notice first, then the film, and the draft of its impression."""
    lines = [*list_notices(result), f"Model {result.model}, version {result.version}.", _describe(result)]
    draft = write_outgoing(result, language)
    return "\n".join([*lines, draft] if draft else lines)


def _describe(result: FilmResult) -> str:
    """The film in a line. Without numbers it has no findings, and reviews of them are not told either."""
    parts = [f"Film {clean(result.film.sop_instance)}: {result.bucket}"]
    positives = [one for one in result.findings if one.positive]
    if result.findings:
        named = ", ".join(f"{one.finding} {one.probability:.2f}" for one in positives)
        parts.append(f"at or above the operating point: {named or 'none'}")
    opinions = {one.finding: find_opinion(find_reviews(result, one.finding)) for one in result.findings}
    if said := [f"{finding} {opinion}" for finding, opinion in opinions.items() if opinion]:
        parts.append(f"reviewed: {', '.join(said)}")
    return "; ".join(parts) + "."
