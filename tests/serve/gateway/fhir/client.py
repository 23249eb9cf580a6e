"""A client of the endpoint's FHIR routes, which takes valid answers alone."""

from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI

from chestai.results.fhir.checks import check_resource
from chestai.results.fhir.vocabulary import Resource
from serve.api.routes.fhir import FHIR_JSON, FORM
from tests.serve.support.local import Reply, send_request

SERVER = "http://test"


def get(app: FastAPI, path: str, **parameters: Any) -> Reply:
    query = f"?{urlencode(parameters)}" if parameters else ""
    return send_request(app, f"/fhir/{path}{query}", method="GET")


def post(app: FastAPI, kind: str, form: str, content_type: str = FORM) -> Reply:
    """A search by form."""
    return send_request(app, f"/fhir/{kind}/_search", [form.encode()], {"content-type": content_type})


def ask(app: FastAPI, path: str, **parameters: Any) -> Resource:
    """A whole answer, which is valid."""
    reply = get(app, path, **parameters)
    assert (reply.status, reply.headers["content-type"]) == (200, FHIR_JSON), reply.body
    answer: Resource = reply.json()
    check_resource(answer)
    return answer


def find(app: FastAPI, kind: str, **parameters: Any) -> list[Resource]:
    return [entry["resource"] for entry in ask(app, kind, **parameters).get("entry", [])]


def find_code(reply: Reply, status: int) -> str:
    """The code of an error, which is a valid OperationOutcome."""
    assert (reply.status, reply.headers["content-type"]) == (status, FHIR_JSON), reply.body
    outcome = reply.json()
    check_resource(outcome)
    code: str = outcome["issue"][0]["details"]["coding"][0]["code"]
    return code


def write_token(identifier: Resource) -> str:
    value = "".join(f"\\{sign}" if sign in "\\|,$" else sign for sign in identifier["value"])
    return f"{identifier.get('system', '')}|{value}"
