"""The OpenAPI document is true: what schemathesis makes of it is answered as it says, and its examples fit it."""

import copy
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import jsonschema
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from chestai.lake import Lake
from chestai.pixels import Grey
from serve.answers import Served, ServedCard
from serve.problems import overloaded
from serve.scoring import Scored
from serve.web.application import application
from serve.web.services import Services
from tests.serve.forgery import encoded, films
from tests.serve.local import local_app
from tests.serve.test_endpoint import FINDINGS

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
WHOLE = encoded(films()[0])
ROUTES = (
    ("POST", "/infer"),
    ("POST", "/predict"),
    ("POST", "/batch_predict"),
    ("GET", "/images/{image_id}/heatmap"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/model"),
)
EXAMPLES = 30
answered: Counter[tuple[str, int]] = Counter()

schemathesis.openapi.format("binary", st.sampled_from([WHOLE, WHOLE, WHOLE[:-40], b""]) | st.binary(max_size=200))


@schemathesis.serializer("application/dicom")
def as_it_is(ctx: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class Overloaded:
    """A model that has no time."""

    async def score(self, grey: Grey) -> Scored:
        raise overloaded("busy")

    async def card(self) -> ServedCard:
        raise overloaded("busy")

    async def served(self) -> Served:
        raise overloaded("busy")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("openapi"), False, "serve.max_upload_mb=1")


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, one) for path, methods in document["paths"].items() for one in methods.values()]


def made_from(app: FastAPI, known: bool = False) -> BaseSchema:
    """Without `default`, which allows every status; where `known`, of images and findings most of which are there."""
    document = copy.deepcopy(app.openapi())
    for _, operation in operations(document):
        del operation["responses"]["default"]
        for one in operation.get("parameters", ()) if known else ():
            names = {"enum": ["stored", "gone"] if one["name"] == "image_id" else ["top", *FINDINGS]}
            one["schema"] = {"type": "array", "items": names} if one["name"] == "explain" else names
    schema = schemathesis.openapi.from_dict(document)
    schema.app = app
    return schema


@pytest.fixture(scope="module")
def api(app: FastAPI) -> BaseSchema:
    return made_from(app)


@pytest.fixture(scope="module")
def known_api(app: FastAPI) -> BaseSchema:
    return made_from(app, known=True)


@pytest.fixture(scope="module")
def busy_api(app: FastAPI) -> BaseSchema:
    services: Services = app.state.services
    return made_from(application(Services(Overloaded(), Lake(services.lake.root), services.limits)), known=True)


def try_out(
    operation: schemathesis.APIOperation,
    mode: GenerationMode = GenerationMode.POSITIVE,
    checks: Sequence[schemathesis.CheckFunction] = CHECKS,
    **headers: str,
) -> None:
    """Requests that fit the document, or do not, and whether their answers fit it."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: schemathesis.Case) -> None:
        response = case.call(headers=headers)
        case.validate_response(response, checks=[*checks])
        answered[case.path, response.status_code] += 1

    with suppress(Unsatisfiable):  # of a route without parameters: nothing can be wrong
        one()


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_what_is_answered_is_documented(method: str, path: str, mode: GenerationMode, api: BaseSchema) -> None:
    try_out(api[path][method], mode)


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_so_it_is_of_what_is_there(method: str, path: str, accept: str, known_api: BaseSchema) -> None:
    try_out(known_api[path][method], Accept=accept)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_so_is_a_busy_model(method: str, path: str, busy_api: BaseSchema) -> None:
    try_out(busy_api[path][method], checks=CHECKS[1:])  # a 503 is a server's error, and meant here


def test_requests_got_through_and_did_not(document: dict[str, Any]) -> None:
    """Else the tests above saw nothing."""
    if not answered:
        pytest.skip("by itself")
    assert {path for path, _ in answered} == {path for _, path in ROUTES} == set(document["paths"])
    assert all(answered[path, 200] for path in document["paths"]), answered
    for path, statuses in {"/infer": (406, 422, 503), "/images/{image_id}/heatmap": (404, 422, 503)}.items():
        assert all(answered[path, status] for status in statuses), answered


def test_every_route_says_what_it_does_and_may_refuse(document: dict[str, Any]) -> None:
    summaries = [one["summary"] for _, one in operations(document)]
    assert len(set(summaries)) == len(summaries) == 7
    for path, operation in operations(document):
        assert operation["description"] and " " in operation["summary"] and operation["tags"]
        assert all(one.get("description") and one["schema"] for one in operation.get("parameters", ())), path
        for status, response in operation["responses"].items():
            if status.isdigit() and status != "200":
                problem = response["content"]["application/problem+json"]
                codes = problem["schema"]["allOf"][1]["properties"]["code"]["enum"]
                assert codes and set(codes) == set(problem["examples"])
                assert all(f"`{code}`" in response["description"] for code in codes)


def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    checked = 0
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            for kind, content in response.get("content", {}).items():
                examples = [one["value"] for one in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                assert examples or kind == "image/png" or status == "default", (path, status, kind)
                for one in examples:
                    jsonschema.validate(one, {**content["schema"], "components": document["components"]})
                    assert set(one) >= {"notice"}
                    checked += 1
    assert checked > 50
