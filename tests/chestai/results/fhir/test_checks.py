"""The checks find what fhir.resources lets through."""

from copy import deepcopy
from typing import Any

import pytest

from chestai.results.fhir.bundle import build_transaction
from chestai.results.fhir.checks import find_problems
from chestai.results.fhir.resources import build_resources
from tests.chestai.results.samples import RESULT

BUNDLE = build_transaction(build_resources(RESULT))
PATIENT, DEVICE, STUDY, TRIAGE, HEART, REPORT = 0, 1, 2, 3, 4, -1


def broken(index: int, *path: str | int, value: Any) -> list[str]:
    """The problems of the Bundle after a change in an entry."""
    bundle = deepcopy(BUNDLE)
    target = bundle["entry"][index]
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return find_problems(bundle)


def test_the_bundle_itself_is_right() -> None:
    assert find_problems(BUNDLE) == []


@pytest.mark.parametrize(
    ("index", "path", "value", "problem"),
    [
        (REPORT, ("resource", "status"), "foo", "DiagnosticReport.status: not in its value set"),
        (HEART, ("resource", "status"), "done", "Observation.status: not in its value set"),
        (PATIENT, ("resource", "gender"), "F", "Patient.gender: not in its value set"),
        (PATIENT, ("resource", "identifier", 0, "use"), "main", "Patient.identifier.use: no value set is known"),
        (STUDY, ("resource", "status"), "final", "ImagingStudy.status: not in its value set"),
        (REPORT, ("request", "method"), "PUT", "Bundle.entry.request.method: not in its value set"),
        (
            HEART,
            ("resource", "interpretation", 0, "coding", 0, "code"),
            "YES",
            "Observation.interpretation.coding: an unknown code of "
            "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
        ),
        (REPORT, ("resource", "subject", "reference"), "urn:uuid:0", "DiagnosticReport.subject: leads nowhere"),
        (REPORT, ("resource", "subject", "reference"), "Patient/1", "DiagnosticReport.subject: leads nowhere"),
        (
            REPORT,
            ("request", "ifNoneExist"),
            None,
            "Bundle.entry.request: DiagnosticReport is not conditional",
        ),
        (REPORT, ("fullUrl",), BUNDLE["entry"][0]["fullUrl"], "Bundle.entry.fullUrl: missing or repeated"),
    ],
)
def test_a_fault_is_named(index: int, path: tuple[str | int, ...], value: str | None, problem: str) -> None:
    assert problem in broken(index, *path, value=value)


def test_a_reference_leads_to_the_right_type() -> None:
    device = BUNDLE["entry"][DEVICE]["fullUrl"]
    assert broken(REPORT, "resource", "subject", "reference", value=device) == [
        "DiagnosticReport.subject: leads to a Device"
    ]


def test_a_conditional_reference_is_left_to_the_server() -> None:
    assert broken(REPORT, "resource", "subject", "reference", value="Patient?identifier=a|b") == []


def test_messages_hold_no_values() -> None:
    problems = broken(PATIENT, "resource", "birthDate", value="SECRET") + broken(
        PATIENT, "resource", "name", value="SECRET"
    )
    assert problems and "SECRET" not in " ".join(problems)


@pytest.mark.parametrize(
    "resource",
    [{}, {"resourceType": "Nonsense"}, {"resourceType": "../x"}, {"resourceType": 1}, {"resourceType": "patient"}],
)
def test_what_is_no_resource_is_refused(resource: dict[str, Any]) -> None:
    assert find_problems(resource)
