"""The DiagnosticReport: what was found on the films of a study, in words, with the observations behind it."""

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
from chestai.results.review_status import find_opinion, find_reviews, find_stage
from chestai.results.text import clean

REPLACES = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"


def build_report(
    results: Sequence[FilmResult],
    context: Resource,
    study: Resource,
    observations: Sequence[Resource],
    release: Release,
) -> Resource:
    """
    Args:
        context: Subject and times, as the observations have them.
    """
    first = results[0]
    revision = sum(result.revision for result in results)  # grows with each review of any film
    films = sorted(result.film.sop_instance for result in results)
    lasting: tuple[str | int, ...] = ("report", *films, first.model, first.version)
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "id": make_uuid(*lasting, revision),
        "identifier": [identify(*lasting, revision), identify(*lasting)],
        "status": find_stage(results),
        "category": [make_concept(RADIOLOGY)],
        "code": make_concept(REPORT) | {"text": "Triage of chest films by a model"},
        **context,
        "result": [refer(observation) for observation in observations],
        "imagingStudy" if release == "R4" else "study": [refer(study)],
        "conclusion": write_conclusion(results),
    }
    if revision:
        earlier = {"type": "DiagnosticReport", "identifier": identify(*lasting, revision - 1)}
        report["extension"] = [{"url": REPLACES, "valueReference": earlier}]
    reviewers = dict.fromkeys(clean(review.reviewer) for result in results for review in result.reviews)
    if names := [name for name in reviewers if name]:
        report["resultsInterpreter"] = [{"display": name} for name in names]
    return report


def write_conclusion(results: Sequence[FilmResult]) -> str:
    """A few lines: the notice first, then the films."""
    first = results[0]
    return "\n".join(
        [*list_notices(results), f"Model {first.model}, version {first.version}.", *map(_describe, results)]
    )


def _describe(result: FilmResult) -> str:
    """A film in a line. Without numbers it has no findings, and reviews of them are not told either."""
    parts = [f"Film {clean(result.film.sop_instance)}: {result.bucket}"]
    positives = [one for one in result.findings if one.positive]
    if result.findings:
        named = ", ".join(f"{one.finding} {one.probability:.2f}" for one in positives)
        parts.append(f"at or above the operating point: {named or 'none'}")
    opinions = {one.finding: find_opinion(find_reviews(result, one.finding)) for one in result.findings}
    if said := [f"{finding} {opinion}" for finding, opinion in opinions.items() if opinion]:
        parts.append(f"reviewed: {', '.join(said)}")
    return "; ".join(parts) + "."
