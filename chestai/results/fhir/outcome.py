"""The OperationOutcome: why a request has no other answer."""

from chestai.results.fhir.vocabulary import Resource

ERRORS = "urn:chestai:errors"
"""The system of our error codes, which are those of problem documents."""
ISSUES = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    429: "throttled",
    503: "transient",
}
"""FHIR's code of an issue, by HTTP status; `invalid` for others."""


def build_outcome(status: int, code: str, detail: str) -> Resource:
    """
    Args:
        status: Of HTTP.
        code: Ours, for programs.
        detail: For people.
    """
    issue = {
        "severity": "error",
        "code": ISSUES.get(status, "invalid"),
        "details": {"coding": [{"system": ERRORS, "code": code}], "text": detail},
    }
    return {"resourceType": "OperationOutcome", "issue": [issue]}
