"""The OpenAPI document is correct: responses to generated requests match it, and so do its examples."""

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
from sqlalchemy import select

from chestai.imaging.preprocess import Grey
from serve.api.app import create_app
from serve.api.routes.dicomweb import DICOM_JSON
from serve.api.routes.fhir import FHIR_JSON
from serve.api.services import ModelRouter, Services
from serve.auth.bootstrap import add_first_admin
from serve.gateway.db.models import ResourceRow
from serve.inference.predictor import ScoreResult
from serve.problems import overloaded_error
from serve.schemas.inference import ModelInfo
from serve.schemas.operations import ModelCard
from tests.serve.gateway.recorded import Recorded
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.identity_provider import sign_in_settings
from tests.serve.support.local import FakeJobRunner, local_app
from tests.serve.support.registry import add_model_card, register_bundles
from tests.serve.support.routes import ROUTES
from tests.serve.support.tokens import ISSUER, SECRET
from tests.support.models import FINDINGS, make_bundle

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
WHOLE = encode_image(make_films()[0])
EXAMPLES = 30  # requests of each test
FEW_EXAMPLES = 10  # where the response hardly depends on the request
OF_IMAGES = ("", "/file", "/preview", "/map", "/priors", "/report")
OF_RECORDED_IMAGES = (*(f"/images/{{image_id}}{name}" for name in OF_IMAGES), "/studies/{image_id}/claim")
OTHER_TYPES = (("POST", "/infer", "image/png"), ("GET", "/images/{image_id}/report", "text/plain"))
GATEWAY = ("gateway.stow=true", "gateway.fhir=true")
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
responses: Counter[tuple[str, int]] = Counter()

schemathesis.openapi.format("binary", st.sampled_from([WHOLE, WHOLE, WHOLE[:-40], b""]) | st.binary(max_size=200))


@schemathesis.serializer("application/dicom", "multipart/related")
def serialize_dicom(ctx: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class OverloadedScorer:
    """A scorer that is always busy."""

    async def score(self, grey: Grey) -> ScoreResult:
        raise overloaded_error("busy")

    async def card(self) -> ModelCard:
        raise overloaded_error("busy")

    async def model_info(self) -> ModelInfo:
        raise overloaded_error("busy")


@dataclass(frozen=True)
class Api:
    """The application, an admin's key, and the names of existing images, findings and keys by (path, parameter)."""

    app: FastAPI
    key: str
    names: Mapping[tuple[str, str], Sequence[str]]

    def schema(self, existing: bool = False) -> BaseSchema:
        """Loads the document without `default`, which allows every status.

        Args:
            existing: Restrict parameters to names most of which exist.
        """
        document = copy.deepcopy(self.app.openapi())
        for path, operation in operations(document):
            del operation["responses"]["default"]
            for one in operation.get("parameters", ()) if existing else ():
                names = self.names.get((path, one["name"]), self.names.get(("", one["name"])))
                if names is not None:
                    some = {"type": "string", "enum": [*names]}
                    one["schema"] = {"type": "array", "items": some} if one["name"] == "explain" else some
        if existing:
            schemas = document["components"]["schemas"]
            schemas["BatchJobRequest"]["properties"] |= {
                "prefix": {"enum": ["lake", "/"]},
                "split": {"enum": ["test", None]},
            }
            schemas["SignInRequest"]["properties"]["api_key"]["enum"] = [self.key, "wrong"]
            schemas["ReviewRequest"]["properties"]["image_id"]["enum"] = [*self.names["/images/{image_id}", "image_id"]]
            schemas["ReviewRequest"]["properties"]["model_version"] = {"enum": [1, None]}
            schemas["ReviewRequest"]["properties"]["verdicts"]["propertyNames"] = {"enum": [*FINDINGS]}
        schema = schemathesis.openapi.from_dict(document)
        schema.app = self.app
        return schema


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "secret").write_text(SECRET)
    provider = [f"auth.jwt.issuer={ISSUER}", f"auth.jwt.secret={folder / 'secret'}", *sign_in_settings(ISSUER)]
    app = local_app(
        folder, False, "serve.max_upload_mb=1", "auth.required=true", "state.keep_images=true", *provider, *GATEWAY
    )
    services: Services = app.state.services
    key = add_first_admin(services.state.store.database)
    assert key is not None
    add_model_card(register_bundles(services.config, make_bundle()), 1, folder)
    client, headers = TestClient(app), {"X-API-Key": key}
    assert client.post("/infer", content=WHOLE, headers=headers | {"content-type": "image/png"}).status_code == 200
    made = [client.post("/keys", json={"owner": "spare", "role": "reader"}, headers=headers) for _ in range(EXAMPLES)]
    jobs = [client.post("/batch_infer", json={"prefix": "lake"}, headers=headers).json()["job_id"] for _ in range(3)]
    assert isinstance(services.jobs, FakeJobRunner)
    services.jobs.held |= {*jobs[:2]}
    Recorded(app).add("PAT-1", "1.2.3")
    with services.state.store.database.read_session() as session:
        reports = session.scalars(select(ResourceRow.resource_id).where(ResourceRow.kind == "DiagnosticReport")).all()
    names = {
        **{(f"/fhir/{{kind}}{rest}", "kind"): ["DiagnosticReport"] for rest in ("", "/_search", "/{resource_id}")},
        ("/fhir/{kind}/{resource_id}", "resource_id"): reports,
        ("/jobs/{job_id}", "job_id"): jobs,
        **{(path, "image_id"): [hashlib.sha256(WHOLE).hexdigest()] for path in OF_RECORDED_IMAGES},
        ("/images/{image_id}/heatmap", "image_id"): ["stored", "gone"],
        ("/keys/{prefix}", "prefix"): [one.json()["key"].split("_")[1] for one in made],
        ("", "explain"): ["top", *FINDINGS],
        ("", "label"): ["top", *FINDINGS],
        ("", "language"): ["en", "es", "xx"],
    }
    return Api(app, key, names)


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    return api.app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, one) for path, methods in document["paths"].items() for one in methods.values()]


@pytest.fixture(scope="module")
def generic(api: Api) -> BaseSchema:
    return api.schema()


@pytest.fixture(scope="module")
def existing(api: Api) -> BaseSchema:
    return api.schema(existing=True)


@pytest.fixture(scope="module")
def busy(api: Api) -> BaseSchema:
    """The same state, with a scorer that is always busy."""
    app = create_app(replace(api.app.state.services, model=ModelRouter(OverloadedScorer())))
    return replace(api, app=app).schema(existing=True)


def check_operation(
    operation: schemathesis.APIOperation,
    mode: GenerationMode = GenerationMode.POSITIVE,
    checks: Sequence[schemathesis.CheckFunction] = CHECKS,
    headers: Mapping[str, str] | None = None,
    max_examples: int = EXAMPLES,
) -> None:
    """Sends generated requests, valid or (by mode) invalid ones, and checks the responses against the document."""

    @settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check_case(case: schemathesis.Case) -> None:
        response = case.call(headers=OWN_PAGE | dict(headers or {}), allow_redirects=False)
        case.validate_response(response, checks=[*checks])
        responses[case.path, response.status_code] += 1

    with suppress(Unsatisfiable):  # a route without parameters has no invalid requests
        check_case()


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_generated_requests_get_documented_responses(
    method: str, path: str, mode: GenerationMode, generic: BaseSchema, api: Api
) -> None:
    check_operation(generic[path][method], mode, headers={"X-API-Key": api.key})


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [*((*route, "application/json") for route in ROUTES), *OTHER_TYPES],
)
def test_requests_for_existing_names_get_documented_responses(
    method: str, path: str, accept: str, existing: BaseSchema, api: Api
) -> None:
    check_operation(existing[path][method], headers={"X-API-Key": api.key, "Accept": accept})


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_busy_model_gives_documented_responses(method: str, path: str, busy: BaseSchema, api: Api) -> None:
    checks = CHECKS[1:]  # a 503 counts as a server error, which is expected here
    check_operation(busy[path][method], checks=checks, headers={"X-API-Key": api.key}, max_examples=FEW_EXAMPLES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_requests_without_a_key_get_documented_responses(method: str, path: str, existing: BaseSchema) -> None:
    check_operation(existing[path][method], max_examples=FEW_EXAMPLES)


def test_generated_requests_had_successes_and_errors(document: dict[str, Any]) -> None:
    """Otherwise the tests above would have checked nothing."""
    if not responses:
        pytest.skip("needs the tests above")
    assert {path for path, _ in responses} == {path for _, path in ROUTES} == set(document["paths"])
    assert {(method.upper(), path) for path, methods in document["paths"].items() for method in methods} == {*ROUTES}
    succeeded = {path for path, status in responses if status in (200, 201, 202, 204, 302)}
    missing = {"/session/oidc/callback", "/dicomweb/studies", "/dicomweb/studies/{study}"}
    assert succeeded == set(document["paths"]) - missing, "a provider has to precede, and a boundary to divide"
    for path, statuses in {
        "/infer": (401, 406, 422, 503),
        "/images/{image_id}/heatmap": (401, 404, 422, 503),
        "/batch_infer": (202, 401, 403, 422, 503),
        "/session": (200, 201, 204, 401, 422),
    }.items():
        assert all(responses[path, status] for status in statuses), responses


def test_every_route_documents_its_purpose_and_errors(document: dict[str, Any]) -> None:
    summaries = [operation["summary"] for _, operation in operations(document)]
    assert len(set(summaries)) == len(summaries) == len(ROUTES)
    for path, operation in operations(document):
        assert operation["description"] and " " in operation["summary"] and operation["tags"]
        assert all(one.get("description") and one["schema"] for one in operation.get("parameters", ())), path
        for status, response in operation["responses"].items():
            if status.isdigit() and status >= "400" and DICOM_JSON not in response["content"]:
                (media_type, problem), *others = response["content"].items()
                codes = [*problem["examples"]]
                is_outcome = path.startswith("/fhir/") and status != "421"  # which comes before the route
                assert codes and not others and media_type == (FHIR_JSON if is_outcome else "application/problem+json")
                if media_type != FHIR_JSON:
                    assert problem["schema"]["allOf"][1]["properties"]["code"]["enum"] == codes
                assert all(f"`{code}`" in response["description"] for code in codes)


def find_examples(content: dict[str, Any], document: dict[str, Any]) -> list[Any]:
    """Returns the examples of a response: its own, and those of its schema or of one of the alternatives."""
    examples = [example["value"] for example in content.get("examples", {}).values()]
    examples += [content["example"]] if "example" in content else []
    for schema in content["schema"].get("anyOf", [content["schema"]]):
        name = schema.get("$ref", "").removeprefix("#/components/schemas/")
        examples += document["components"]["schemas"].get(name, {}).get("examples", [])
    return examples


def test_every_response_has_an_example_that_matches_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                examples = find_examples(content, document)
                is_image = media_type.startswith("image/") or media_type == "application/dicom"
                assert examples or is_image or status == "default", (path, status, media_type)
                for example in examples:
                    jsonschema.validate(example, {**content["schema"], "components": document["components"]})
                    assert media_type.startswith("text/") or {*example} & {"notice", "resourceType", "00081199"}
                    checked += 1
    assert checked > 50
