"""Sends a transaction Bundle to a FHIR server."""

from collections.abc import Iterator
from typing import Any

import httpx

from chestai.results.fhir.bundle import to_json
from chestai.results.fhir.checks import check_resource
from chestai.results.fhir.vocabulary import Release, Resource
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.http import authorise, is_delay
from serve.gateway.senders.redaction import redact

CONTENT = "application/fhir+json"


def send(
    bundle: Resource, base_url: str, timeout_s: float, token_variable: str | None = None, release: Release = "R4"
) -> None:
    """Checks a transaction, sends it, and makes sure that the server has carried it out.

    Certificates are verified; the system's own are trusted, or those of SSL_CERT_FILE.

    Args:
        base_url: Of the server, such as `https://host/fhir`.
        timeout_s: For connecting, and for every pause of the server.
        token_variable: The environment variable with the bearer token; None to send none.

    Raises:
        DeliveryDelayed: No connection, no answer in time, status 401, 403, 408, 429 or 5xx, or the token is not there.
        DeliveryRefused: The Bundle is invalid, the server refuses it, or its answer is no transaction's.
    """
    try:
        check_resource(bundle, release)
    except ValueError as error:
        raise DeliveryRefused(f"cannot be sent: {error}") from error
    url = _read_url(base_url)
    headers = {"Content-Type": CONTENT, "Accept": CONTENT} | authorise(token_variable)
    try:
        # An http URL is of this network, so it must not go through a proxy.
        with httpx.Client(timeout=timeout_s, trust_env=url.scheme == "https") as client:
            response = client.post(url, content=to_json(bundle), headers=headers)
    except httpx.HTTPError as error:
        raise DeliveryDelayed(f"{url.host}: {type(error).__name__}") from error
    _check_answer(response, bundle)


def _read_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise DeliveryRefused("the base URL is no http or https URL")
    return url


def _check_answer(response: httpx.Response, bundle: Resource) -> None:
    status, host = response.status_code, response.url.host
    answer = _read(response)
    if response.is_success:
        if answer.get("type") != "transaction-response" or len(answer.get("entry", [])) != len(bundle["entry"]):
            raise DeliveryRefused(f"{host} answered {status}, but not as a FHIR server does to a transaction")
        return
    reason = redact("; ".join(_list_issues(answer)), _list_patient_values(bundle)) or "no reason given"
    raised = DeliveryDelayed if is_delay(status) else DeliveryRefused
    raise raised(f"{host} answered {status}: {reason}")


def _read(response: httpx.Response) -> Resource:
    """The answer, or an empty one if it is no resource."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and "resourceType" in answer else {}


def _list_issues(outcome: Resource) -> Iterator[str]:
    """The issues of an OperationOutcome, a text each."""
    if outcome.get("resourceType") != "OperationOutcome":
        return
    for issue in outcome.get("issue", []):
        text = issue.get("diagnostics") or issue.get("details", {}).get("text") or ""
        yield f"{issue.get('code', 'unknown')}: {text}".removesuffix(": ")


def _list_patient_values(bundle: Resource) -> Iterator[str]:
    """What a server may quote of the patient and the order."""
    for resource in (entry["resource"] for entry in bundle["entry"]):
        if resource["resourceType"] == "Patient":
            yield from _list_texts([resource.get(key) for key in ("name", "birthDate")])
            yield resource.get("birthDate", "").replace("-", "")
        if resource["resourceType"] in ("Patient", "ImagingStudy"):
            yield from (one["value"] for one in resource["identifier"])
            yield from _list_texts(resource.get("referrer"))


def _list_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _list_texts(one)
