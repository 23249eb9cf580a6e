"""The OpenAPI document is true: what schemathesis makes of it is answered as it says, and its examples fit it."""

import copy
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import jsonschema
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
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

from chestai.imaging.preprocess import Grey
from serve.api.app import create_app
from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from serve.inference.predictor import ScoreResult
from serve.problems import overloaded
from serve.schemas import ModelCard, ModelInfo
from tests.serve.support.forgery import encoded, films
from tests.serve.support.local import Tray, local_app
from tests.serve.support.routes import ROUTES
from tests.support.models import FINDINGS

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
WHOLE = encoded(films()[0])
EXAMPLES = 30
answered: Counter[tuple[str, int]] = Counter()

schemathesis.openapi.format("binary", st.sampled_from([WHOLE, WHOLE, WHOLE[:-40], b""]) | st.binary(max_size=200))


@schemathesis.serializer("application/dicom")
def as_it_is(ctx: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class Overloaded:
    """A model that has no time."""

    async def score(self, grey: Grey) -> ScoreResult:
        raise overloaded("busy")

    async def card(self) -> ModelCard:
        raise overloaded("busy")

    async def model_info(self) -> ModelInfo:
        raise overloaded("busy")


@dataclass(frozen=True)
class Api:
    """The application, a key that may do everything, and what its images, findings and keys are called."""

    app: FastAPI
    key: str
    names: Mapping[tuple[str, str], Sequence[str]]

    def schema(self, known: bool = False) -> BaseSchema:
        """Without `default`, which allows every status; where `known`, of names most of which are there."""
        document = copy.deepcopy(self.app.openapi())
        for path, operation in operations(document):
            del operation["responses"]["default"]
            for one in operation.get("parameters", ()) if known else ():
                names = self.names.get((path, one["name"]), self.names.get(("", one["name"])))
                if names is not None:
                    some = {"type": "string", "enum": [*names]}
                    one["schema"] = {"type": "array", "items": some} if one["name"] == "explain" else some
        if known:
            schemas = document["components"]["schemas"]
            schemas["BatchJobRequest"]["properties"] |= {
                "prefix": {"enum": ["lake", "/"]},
                "split": {"enum": ["test", None]},
            }
            schemas["ReviewRequest"]["properties"]["image_id"]["enum"] = [*self.names["/images/{image_id}", "image_id"]]
            schemas["ReviewRequest"]["properties"]["model_version"] = {"enum": [1, None]}
            schemas["ReviewRequest"]["properties"]["verdicts"]["propertyNames"] = {"enum": [*FINDINGS]}
        schema = schemathesis.openapi.from_dict(document)
        schema.app = self.app
        return schema


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    app = local_app(tmp_path_factory.mktemp("openapi"), False, "serve.max_upload_mb=1", "auth.required=true")
    services: Services = app.state.services
    key = add_first_admin(services.store.database)
    assert key is not None
    client, headers = TestClient(app), {"X-API-Key": key}
    assert client.post("/infer", content=WHOLE, headers=headers | {"content-type": "image/png"}).status_code == 200
    made = [client.post("/keys", json={"owner": "spare", "role": "reader"}, headers=headers) for _ in range(EXAMPLES)]
    jobs = [client.post("/batch_infer", json={"prefix": "lake"}, headers=headers).json()["job_id"] for _ in range(3)]
    assert isinstance(services.jobs, Tray)
    services.jobs.held |= {*jobs[:2]}
    names = {
        ("/jobs/{job_id}", "job_id"): jobs,
        ("/images/{image_id}", "image_id"): [hashlib.sha256(WHOLE).hexdigest()],
        ("/images/{image_id}/heatmap", "image_id"): ["stored", "gone"],
        ("/keys/{prefix}", "prefix"): [one.json()["key"].split("_")[1] for one in made],
        ("", "explain"): ["top", *FINDINGS],
        ("", "label"): ["top", *FINDINGS],
    }
    return Api(app, key, names)


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    return api.app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, one) for path, methods in document["paths"].items() for one in methods.values()]


@pytest.fixture(scope="module")
def anything(api: Api) -> BaseSchema:
    return api.schema()


@pytest.fixture(scope="module")
def known(api: Api) -> BaseSchema:
    return api.schema(known=True)


@pytest.fixture(scope="module")
def busy(api: Api) -> BaseSchema:
    """The same state behind a model that has no time."""
    app = create_app(replace(api.app.state.services, scorer=Overloaded()))
    return replace(api, app=app).schema(known=True)


def try_out(
    operation: schemathesis.APIOperation,
    mode: GenerationMode = GenerationMode.POSITIVE,
    checks: Sequence[schemathesis.CheckFunction] = CHECKS,
    headers: Mapping[str, str] | None = None,
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
        response = case.call(headers=dict(headers or {}))
        case.validate_response(response, checks=[*checks])
        answered[case.path, response.status_code] += 1

    with suppress(Unsatisfiable):  # of a route without parameters: nothing can be wrong
        one()


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_what_is_answered_is_documented(
    method: str, path: str, mode: GenerationMode, anything: BaseSchema, api: Api
) -> None:
    try_out(anything[path][method], mode, headers={"X-API-Key": api.key})


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_so_it_is_of_what_is_there(method: str, path: str, accept: str, known: BaseSchema, api: Api) -> None:
    try_out(known[path][method], headers={"X-API-Key": api.key, "Accept": accept})


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_so_is_a_busy_model(method: str, path: str, busy: BaseSchema, api: Api) -> None:
    try_out(
        busy[path][method], checks=CHECKS[1:], headers={"X-API-Key": api.key}
    )  # a 503 is a server's error, meant here


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_so_is_nobody(method: str, path: str, known: BaseSchema) -> None:
    try_out(known[path][method])


def test_requests_got_through_and_did_not(document: dict[str, Any]) -> None:
    """Else the tests above saw nothing."""
    if not answered:
        pytest.skip("by itself")
    assert {path for path, _ in answered} == {path for _, path in ROUTES} == set(document["paths"])
    assert {(method.upper(), path) for path, methods in document["paths"].items() for method in methods} == {*ROUTES}
    assert all(any(answered[path, status] for status in (200, 201, 202, 204)) for path in document["paths"]), answered
    for path, statuses in {
        "/infer": (401, 406, 422, 503),
        "/images/{image_id}/heatmap": (401, 404, 422, 503),
        "/batch_infer": (202, 401, 403, 422, 503),
    }.items():
        assert all(answered[path, status] for status in statuses), answered


def test_every_route_says_what_it_does_and_may_refuse(document: dict[str, Any]) -> None:
    summaries = [one["summary"] for _, one in operations(document)]
    assert len(set(summaries)) == len(summaries) == len(ROUTES)
    for path, operation in operations(document):
        assert operation["description"] and " " in operation["summary"] and operation["tags"]
        assert all(one.get("description") and one["schema"] for one in operation.get("parameters", ())), path
        for status, response in operation["responses"].items():
            if status.isdigit() and status >= "400":
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
                    assert kind == "text/plain" or set(one) >= {"notice"}
                    checked += 1
    assert checked > 50
