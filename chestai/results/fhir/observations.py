"""Observations of a film: its triage bucket, and the probability of each finding."""

from collections.abc import Sequence

from chestai.results.fhir.vocabulary import (
    BAND,
    BAND_IMAGES,
    CODES,
    FILM,
    IMAGING,
    INDETERMINATE,
    NEGATIVE,
    POSITIVE,
    REVIEW,
    SCORE,
    TRIAGE,
    UCUM,
    Code,
    FindingCodes,
    Resource,
    code_finding,
    identify,
    make_concept,
    make_uuid,
)
from chestai.results.film_result import FilmResult, FindingResult, ReviewedFinding
from chestai.results.numbers import write_number
from chestai.results.review_status import Opinion, find_opinion, find_reviews, find_stage, name_opinion
from chestai.results.text import clean

OPINIONS: dict[Opinion, Code] = {"present": POSITIVE, "absent": NEGATIVE, "unsure": INDETERMINATE}


def build_observations(result: FilmResult, codes: FindingCodes, context: Resource) -> list[Resource]:
    """The triage first, then the findings in the order of the model.

    Args:
        context: What is the same in all of them: subject, device, study, times.
    """
    triage = _build(result, "triage", TRIAGE, context)
    triage["valueCodeableConcept"] = make_concept((CODES, result.bucket, result.bucket))
    if result.score is not None:
        triage["component"].append({"code": make_concept(SCORE), "valueQuantity": make_quantity(result.score)})
    return [triage, *(_build_finding(result, one, codes, context) for one in result.findings)]


def make_quantity(value: float) -> Resource:
    """A probability or a score: a number without a unit."""
    return {"value": float(write_number(value)), "unit": "1", "system": UCUM, "code": "1"}


def _build(result: FilmResult, kind: str, code: Code, context: Resource) -> Resource:
    """The part that all observations have. Its first identifier names the revision, its second all revisions."""
    lasting = ("observation", result.film.sop_instance, result.model, result.version, kind)
    return {
        "resourceType": "Observation",
        "id": make_uuid(*lasting, result.revision),
        "identifier": [identify(*lasting, result.revision), identify(*lasting)],
        "status": find_stage(result),
        "category": [make_concept(IMAGING)],
        "code": make_concept(code),
        **context,
        "component": [{"code": make_concept(FILM), "valueString": clean(result.film.sop_instance)}],
    }


def _build_finding(result: FilmResult, one: FindingResult, codes: FindingCodes, context: Resource) -> Resource:
    observation = _build(result, one.finding, code_finding(one.finding, codes), context)
    observation["valueQuantity"] = make_quantity(one.probability)
    if one.operating_point is not None:
        limit = make_quantity(one.operating_point)
        text = f"negative below {limit['value']}, the operating point"
        observation["referenceRange"] = [{"high": limit, "text": text}]
    if one.band is not None:  # of a population, so neither the value's own range nor a reference range
        limits = {"low": make_quantity(one.band.low), "high": make_quantity(one.band.high)}
        observation["component"].append({"code": make_concept(BAND), "valueRange": limits})
        observation["component"].append({"code": make_concept(BAND_IMAGES), "valueInteger": one.band.n})
    reviews = find_reviews(result, one.finding)
    opinion = find_opinion(reviews)
    if opinion is not None:  # a reviewer's word counts more than the model's
        observation["interpretation"] = [make_concept(OPINIONS[opinion])]
        observation["component"].append(
            {"code": make_concept(REVIEW), "valueCodeableConcept": make_concept((CODES, opinion, opinion))}
        )
        observation["note"] = _build_notes(reviews)
    elif one.operating_point is not None:
        observation["interpretation"] = [make_concept(POSITIVE if one.positive else NEGATIVE)]
    return observation


def _build_notes(reviews: Sequence[ReviewedFinding]) -> list[Resource]:
    return [
        {
            "authorString": clean(review.reviewer) or "reviewer",
            "time": review.at.isoformat(),
            "text": f"{name_opinion(review)}: the model's answer is called {review.verdict}",
        }
        for review in reviews
    ]
