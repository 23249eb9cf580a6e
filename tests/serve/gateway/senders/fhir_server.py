"""A strict FHIR server in memory, for tests of what is sent: it stores, searches and reads, and forgives nothing.

- `POST /`: a transaction of conditional creates. The Bundle and each stored resource must pass fhir.resources and the
  project's checks. `ifNoneExist` is honoured: a resource that exists is used, two that match are an error (412).
  References of the Bundle become those of the server. Either everything is stored or nothing.
- `GET /<type>?identifier=|subject=|patient=`: a searchset. A parameter that it does not know is an error.
- `GET /<type>/<id>`: a resource.
- `answers`: statuses and bodies that it gives first instead, one a request.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

from fastapi import FastAPI, Request, Response

from chestai.results.fhir.bundle import build_searchset, to_json
from chestai.results.fhir.checks import find_problems
from chestai.results.fhir.vocabulary import Release, Resource
from tests.serve.support.http_server import run_server

CONTENT = "application/fhir+json"
_TOKEN_PARTS = re.compile(r"(?:\\.|[^|\\])+")  # what `|` separates where no backslash stands before it
_UNESCAPED = re.compile(r"\\(.)")


class OutcomeError(Exception):
    """A refusal: status, and text of the OperationOutcome."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass
class FhirServer:
    """resources: by `<type>/<id>`. token: the bearer token that it wants; None for none."""

    release: Release = "R4"
    token: str | None = None
    resources: dict[str, Resource] = field(default_factory=dict)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    url: str = ""

    def list_types(self) -> list[str]:
        """The types of what is stored, sorted."""
        return sorted(name.partition("/")[0] for name in self.resources)

    def transact(self, bundle: Resource) -> Resource:
        if problems := find_problems(bundle, self.release):
            raise OutcomeError(422, "; ".join(problems))
        if bundle["type"] != "transaction":
            raise OutcomeError(400, "not a transaction")
        names, created = {}, {}
        for entry in bundle["entry"]:
            kind = entry["resource"]["resourceType"]
            found = self.search(kind, entry["request"]["ifNoneExist"])
            if len(found) > 1:
                raise OutcomeError(412, f"several resources of type {kind} match")
            names[entry["fullUrl"]] = f"{kind}/{found[0]['id'] if found else uuid4()}"
            if not found:
                created[names[entry["fullUrl"]]] = entry["resource"]
        stored = {name: self._adopt(name, resource, names) for name, resource in created.items()}
        self.resources |= stored
        states = [(name, "201 Created" if name in stored else "200 OK") for name in names.values()]
        entries = [{"response": {"status": status, "location": f"{name}/_history/1"}} for name, status in states]
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}

    def search(self, kind: str, query: str) -> list[Resource]:
        parameters = parse_qsl(query, strict_parsing=True) if query else []
        found = [one for one in self.resources.values() if one["resourceType"] == kind]
        for name, value in parameters:
            if name == "identifier":
                token = tuple(_UNESCAPED.sub(r"\1", part) for part in _TOKEN_PARTS.findall(value))
                found = [one for one in found if token in _list_tokens(one)]
            elif name in ("subject", "patient"):
                wanted = value if "/" in value else f"Patient/{value}"
                found = [one for one in found if one.get("subject", {}).get("reference") == wanted]
            else:
                raise OutcomeError(400, f"unknown parameter {name}")
        return found

    def _adopt(self, name: str, resource: Resource, names: dict[str, str]) -> Resource:
        text = json.dumps(resource)
        for full_url, target in names.items():
            text = text.replace(json.dumps(full_url), json.dumps(target))
        adopted: Resource = {**json.loads(text), "id": name.partition("/")[2]}
        if "urn:uuid:" in text or (problems := find_problems(adopted, self.release)):
            raise OutcomeError(422, f"{name}: a reference is left, or {problems}")
        return adopted

    def answer(self, request: Request, body: bytes) -> tuple[int, bytes]:
        if self.answers:
            return self.answers.pop(0)
        try:
            return 200, to_json(self._answer(request, body))
        except OutcomeError as error:
            issue = {"severity": "error", "code": "processing", "diagnostics": error.text}
            return error.status, to_json({"resourceType": "OperationOutcome", "issue": [issue]})

    def _answer(self, request: Request, body: bytes) -> Resource:
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            raise OutcomeError(401, "a token is needed")
        path = request.url.path.removeprefix("/fhir").strip("/")
        if request.method == "POST":
            if path or request.headers.get("content-type") != CONTENT:
                raise OutcomeError(415 if not path else 404, "send a Bundle to the base URL")
            return self.transact(json.loads(body))
        if "/" not in path:
            return build_searchset(self.search(path, request.url.query), self.url)
        if path not in self.resources:
            raise OutcomeError(404, "unknown")
        return self.resources[path]


def _list_tokens(resource: Resource) -> Iterator[tuple[str, ...]]:
    """The ways in which a search may name a resource by its identifiers: with the system and without."""
    for one in resource.get("identifier", []):
        yield (one["value"],)
        yield one.get("system", ""), one["value"]


@contextmanager
def run_fhir_server(**settings: Any) -> Iterator[FhirServer]:
    """A server on loopback while the block runs."""
    server, app = FhirServer(**settings), FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def route(request: Request) -> Response:
        status, content = server.answer(request, await request.body())
        return Response(content, status, media_type=CONTENT)

    with run_server(app) as (host, port):
        server.url = f"http://{host}:{port}/fhir"
        yield server
