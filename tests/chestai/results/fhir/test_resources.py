"""What resources say of films, and that they stand up to fhir.resources and to our own checks."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from chestai import RESEARCH_USE
from chestai.results.fhir.bundle import build_searchset, build_transaction, to_json
from chestai.results.fhir.capability import build_capability
from chestai.results.fhir.checks import check_resource
from chestai.results.fhir.outcome import ISSUES, build_outcome
from chestai.results.fhir.resources import build_resources
from chestai.results.fhir.vocabulary import Release, Resource
from chestai.results.film import Film
from chestai.results.film_result import FilmResult
from chestai.results.notices import SYNTHETIC
from chestai.results.report_text.impression import write_impression
from tests.chestai.results.samples import AT, FILMS, HOSTILE_FILMS, RESULT, SECOND, review

RELEASES: tuple[Release, ...] = ("R4", "R5")
REVIEWED = replace(RESULT, reviews=(review("Cardiomegaly", "FP"), review("Hernia", "unsure")), revision=1)


def pick(resources: list[Resource], kind: str) -> list[Resource]:
    return [one for one in resources if one["resourceType"] == kind]


def codes(observation: Resource, field: str) -> list[str]:
    return [one["coding"][0]["code"] for one in observation.get(field, [])]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "result",
    [RESULT, REVIEWED, RESULT.without_numbers(), replace(RESULT, synthetic=True)],
    ids=["one", "reviewed", "bucket alone", "synthetic"],
)
def test_bundles_are_valid(result: FilmResult, release: Release) -> None:
    resources = build_resources(result, release)
    check_resource(build_transaction(resources), release)
    check_resource(build_searchset(resources, "https://host/fhir/"), release)
    for resource in resources:
        check_resource(resource, release)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", HOSTILE_FILMS)
def test_malformed_headers_give_valid_bundles(name: str, release: Release) -> None:
    bundle = build_transaction(build_resources(replace(RESULT, film=HOSTILE_FILMS[name]), release))
    check_resource(bundle, release)
    assert to_json(bundle).decode()


@given(film=FILMS)
def test_any_header_gives_a_valid_bundle(film: Film) -> None:
    check_resource(build_transaction(build_resources(replace(RESULT, film=film))))


def test_an_empty_search_has_no_entries() -> None:
    bundle = build_searchset([], "https://host/fhir")
    check_resource(bundle)
    assert bundle["total"] == 0 and "entry" not in bundle


@pytest.mark.parametrize("release", RELEASES)
def test_a_page_names_itself_and_the_next_one(release: Release) -> None:
    links = {"self": "https://host/fhir/Device", "next": "https://host/fhir/Device?_after=1"}
    bundle = build_searchset(build_resources(RESULT, release), "https://host/fhir", links, is_whole=False)
    check_resource(bundle, release)
    assert "total" not in bundle and {link["relation"]: link["url"] for link in bundle["link"]} == links


@pytest.mark.parametrize("status", [*ISSUES, 422])
def test_an_outcome_is_valid(status: int) -> None:
    check_resource(build_outcome(status, "unknown", "there is none"))


def test_the_capability_statement_is_valid() -> None:
    statement = build_capability("https://host/fhir", AT, "0.1.0")
    check_resource(statement)
    assert [one["type"] for one in statement["rest"][0]["resource"]] == [
        "DiagnosticReport",
        "Observation",
        "ImagingStudy",
        "Patient",
        "Device",
    ]


def test_an_observation_tells_the_number_and_the_call() -> None:
    triage, heart, pleura, hernia = pick(build_resources(RESULT), "Observation")
    assert triage["valueCodeableConcept"]["coding"][0]["code"] == "urgent"
    assert heart["status"] == "preliminary"
    assert heart["valueQuantity"]["value"] == 0.83
    assert heart["referenceRange"][0]["high"]["value"] == 0.4
    assert codes(heart, "interpretation") == ["POS"]
    assert codes(pleura, "interpretation") == ["NEG"]
    assert pleura["code"]["text"] == "Pleural Thickening"
    assert "interpretation" not in hernia and "referenceRange" not in hernia


def test_an_observation_tells_how_often_val_images_with_a_like_score_had_the_finding() -> None:
    _, heart, pleura, hernia = pick(build_resources(RESULT), "Observation")
    found = {one["code"]["coding"][0]["code"]: one for one in heart["component"]}
    limits = found["band"]["valueRange"]
    assert (limits["low"]["value"], limits["high"]["value"]) == (0.78, 0.91)
    assert found["band-images"]["valueInteger"] == 137
    assert not [one for other in (pleura, hernia) for one in other["component"] if "valueRange" in one]


def test_a_reviewers_word_counts_more_than_the_models() -> None:
    resources = build_resources(REVIEWED)
    _, heart, pleura, hernia = pick(resources, "Observation")
    assert heart["status"] == "final"
    assert codes(heart, "interpretation") == ["NEG"]
    assert codes(hernia, "interpretation") == ["IND"]
    assert heart["note"][0]["authorString"] == "Dr. Who"
    assert "note" not in pleura
    report = pick(resources, "DiagnosticReport")[0]
    assert report["status"] == "final"
    assert report["resultsInterpreter"] == [{"display": "Dr. Who"}]
    assert "Cardiomegaly absent" in report["conclusion"]


def test_the_report_carries_the_notices() -> None:
    conclusion = pick(build_resources(replace(RESULT, synthetic=True)), "DiagnosticReport")[0]["conclusion"]
    assert conclusion.startswith(f"{RESEARCH_USE}\n{SYNTHETIC}\n")
    assert "urgent; at or above the operating point: Cardiomegaly 0.83." in conclusion


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("language", ["en", "es"])
def test_the_conclusion_ends_with_the_draft(language: str, release: Release) -> None:
    resources = build_resources(RESULT, release, language=language)
    check_resource(build_transaction(resources), release)
    plain = pick(build_resources(RESULT, release), "DiagnosticReport")[0]
    drafted = pick(resources, "DiagnosticReport")[0]
    assert drafted == plain | {"conclusion": f"{plain['conclusion']}\n{write_impression(RESULT, language)}"}
    for result in (REVIEWED, RESULT.without_numbers()):
        assert build_resources(result, release, language=language) == build_resources(result, release)


def test_without_numbers_only_the_bucket_goes_out() -> None:
    resources = build_resources(REVIEWED.without_numbers())
    text = to_json(build_transaction(resources)).decode()
    assert len(pick(resources, "Observation")) == 1
    assert "urgent" in text
    assert not [word for word in ("Cardiomegaly", "0.83", "Hernia", "triage-score") if word in text]


def test_the_same_result_gives_the_same_bytes() -> None:
    for language in (None, "es"):
        one, other = (to_json(build_transaction(build_resources(RESULT, language=language))) for _ in range(2))
        assert one == other


def test_identity_changes_with_revision_version_and_film_alone() -> None:
    def name(result: FilmResult) -> tuple[str, str]:
        revision, lasting = pick(build_resources(result), "DiagnosticReport")[0]["identifier"]
        return revision["value"], lasting["value"]

    first, revised = name(RESULT), name(REVIEWED)
    # In every release: what is sent again is no other report.
    assert first == ("7f3ce814-88c0-5aa1-9123-065476caafaf", "f101a582-0532-5ce0-b5cf-54f1fd22d82b")
    assert first[0] != revised[0] and first[1] == revised[1]
    assert name(replace(RESULT, version=4))[1] != first[1]
    assert name(SECOND)[1] != first[1]
    assert name(replace(RESULT, bucket="soon")) == first


def test_a_revision_names_what_it_replaces() -> None:
    before = pick(build_resources(RESULT), "DiagnosticReport")[0]
    after = pick(build_resources(REVIEWED), "DiagnosticReport")[0]
    assert "extension" not in before
    assert after["extension"][0]["valueReference"]["identifier"] == before["identifier"][0]


def test_codes_of_the_caller_are_used() -> None:
    mapping = {"Cardiomegaly": ("http://snomed.info/sct", "8186001", "Cardiomegaly")}
    observations = pick(build_resources(RESULT, codes=mapping), "Observation")
    systems = [one["code"]["coding"][0]["system"] for one in observations]
    assert systems == ["urn:chestai:codes", "http://snomed.info/sct", "urn:chestai:codes", "urn:chestai:codes"]


def test_patients_without_an_id_are_not_mixed_up() -> None:
    def name(**changes: Any) -> Resource:
        film = replace(RESULT.film, patient_id="", **changes)
        identifier: Resource = pick(build_resources(replace(RESULT, film=film)), "Patient")[0]["identifier"][0]
        return identifier

    assert name() == name()
    assert name() != name(study="1.2.3")


def test_the_issuer_is_the_system_of_patient_ids() -> None:
    patient = build_resources(replace(RESULT, film=replace(RESULT.film, issuer="1.2.3")))[0]
    assert patient["identifier"] == [{"system": "urn:oid:1.2.3", "value": "PAT-4711"}]
    assert patient["name"][0]["prefix"] == ["Dr"] and patient["name"][0]["suffix"] == ["PhD"]


def test_a_film_that_nothing_names_is_refused() -> None:
    with pytest.raises(ValueError, match="no SOP Instance UID"):
        build_resources(replace(RESULT, film=replace(RESULT.film, sop_instance=" \0")))
