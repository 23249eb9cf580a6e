"""FHIR R4: what models found on the gateway's films, to read and to search.

Errors of these routes are OperationOutcomes with the codes of problem documents. What is refused before a route is
found (the `Host`, the path, the method) is a problem document, as everywhere.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from chestai.clock import now
from chestai.results.fhir.bundle import build_searchset
from chestai.results.fhir.capability import SEARCHES, SERVED, build_capability
from chestai.results.fhir.outcome import build_outcome
from chestai.results.fhir.vocabulary import Resource
from serve.api.openapi import FORBIDDEN_ERRORS, STATE_ERRORS
from serve.api.services import Services, ServicesDep
from serve.db.records import Key
from serve.gateway.fhir.search import UUID, Search, Token, find_page
from serve.problems import ApiError, Problem, error_responses

FHIR_JSON, FORM = "application/fhir+json", "application/x-www-form-urlencoded"
PAGE_SIZE, MAX_PAGE_SIZE = 50, 200
STARTED = now()


class FhirResponse(JSONResponse):
    media_type = FHIR_JSON


class FhirRoute(APIRoute):
    """A route whose errors are OperationOutcomes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except ApiError as error:
                return _refuse(error.problem, error.headers)
            except RequestValidationError as error:
                return _refuse(Problem.of_request(error))

        return handle_errors


router = APIRouter(tags=["FHIR"], route_class=FhirRoute)


class SearchParameters(BaseModel):
    """The parameters of a search. One that is unknown is an error: a filter that is ignored shows other patients."""

    model_config = ConfigDict(extra="forbid")

    resource_id: Annotated[Key | None, Field(alias="_id", description=SEARCHES["_id"][1])] = None
    identifier: Annotated[Key | None, Field(description=SEARCHES["identifier"][1])] = None
    patient: Annotated[Key | None, Field(description=SEARCHES["patient"][1])] = None
    study: Annotated[Key | None, Field(description=SEARCHES["study"][1])] = None
    accession: Annotated[Key | None, Field(description=SEARCHES["accession"][1])] = None
    count: Annotated[int, Field(alias="_count", ge=1, description=f"Resources per page, {MAX_PAGE_SIZE} at most.")] = (
        PAGE_SIZE
    )
    after: Annotated[
        str, Field(alias="_after", pattern=f"^(|{UUID.pattern})$", description="From the link to the next page.")
    ] = ""
    format: Annotated[
        Literal["json", "application/fhir+json"], Field(alias="_format", description="Answers are JSON.")
    ] = "json"


def _describe_errors(status: int, **codes: str) -> dict[int | str, dict[str, Any]]:
    """Creates the entry of a route's `responses` that documents its errors of one status; see `error_responses`."""
    issue = {"type": "object", "required": ["severity", "code", "details"]}
    schema = {
        "type": "object",
        "required": ["resourceType", "issue"],
        "properties": {"resourceType": {"const": "OperationOutcome"}, "issue": {"type": "array", "items": issue}},
    }
    examples = {code: {"value": build_outcome(status, code, when)} for code, when in codes.items()}
    entry = error_responses(status, **codes)[status]
    return {status: {**entry, "content": {FHIR_JSON: {"schema": schema, "examples": examples}}}}


def _describe_answer(kind: str, example: Resource) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "object", "required": ["resourceType"]}
    return {200: {"description": kind, "content": {FHIR_JSON: {"schema": schema, "example": example}}}}


OFF_ERRORS = {"fhir_off": "this endpoint tells nothing of the gateway's films (gateway.fhir)"}
UNKNOWN_ERRORS = {"unknown_type": f"the type is none of {', '.join(SERVED)}"}
RESPONSES = {
    **_describe_errors(401, unauthorised="no valid key or token"),
    **_describe_errors(403, **FORBIDDEN_ERRORS, **OFF_ERRORS),
    **_describe_errors(429, too_many_requests="more requests than auth.requests_per_minute allows"),
}
READ_RESPONSES = {**RESPONSES, **_describe_errors(503, **STATE_ERRORS)}
SEARCH_RESPONSES = {
    **READ_RESPONSES,
    **_describe_errors(404, **UNKNOWN_ERRORS),
    **_describe_errors(422, invalid_request="a parameter is unknown, wrong, or there twice"),
}
FORM_RESPONSES = {
    **SEARCH_RESPONSES,
    **_describe_errors(400, incomplete_upload="the connection ended before the form did"),
    **_describe_errors(408, upload_too_slow="the form did not arrive in time"),
    **_describe_errors(413, upload_too_large="the form has more than 256 KiB"),
    **_describe_errors(415, unsupported_media_type=f"the body is not {FORM}"),
}
CAPABILITY = build_capability("https://host/fhir", datetime(2026, 3, 1, tzinfo=UTC), "0.1.0")
DEVICE: Resource = {"resourceType": "Device", "id": "0b8f5d7e-2a43-5c57-8f0c-6f6a5c1f3b10", "status": "active"}
FOUND = _describe_answer("A Bundle of type searchset.", build_searchset([DEVICE], "https://host/fhir"))
Kind = Annotated[str, Path(description=f"One of {', '.join(SERVED)}.")]


@router.get(
    "/fhir/metadata",
    summary="What can be asked as FHIR",
    response_class=FhirResponse,
    responses={
        **_describe_answer("A CapabilityStatement.", CAPABILITY),
        **RESPONSES,
    },
)
async def read_metadata(request: Request, services: ServicesDep) -> Response:
    """The CapabilityStatement. It needs no key: FHIR's clients read it first, to learn how to ask."""
    _check_on(services)
    return FhirResponse(build_capability(_base_url(request), STARTED, request.app.version))


@router.get(
    "/fhir/{kind}",
    summary="Search FHIR resources",
    response_class=FhirResponse,
    responses={**FOUND, **SEARCH_RESPONSES},
)
async def search_resources(
    kind: Kind, parameters: Annotated[SearchParameters, Query()], request: Request, services: ServicesDep
) -> Response:
    """Resources of a type, in the order of their IDs, by page; each link `next` leads to the next one.

    All parameters must match. A report that was replaced after a verdict is found too: each revision is a resource.
    """
    _check_on(services)
    _check_kind(kind)
    return await _search(kind, parameters, request.query_params.multi_items(), request, services)


@router.post(
    "/fhir/{kind}/_search",
    summary="Search FHIR resources by form",
    response_class=FhirResponse,
    openapi_extra={
        "requestBody": {
            "description": "The parameters of `GET /fhir/{kind}`; the address has none.",
            "content": {FORM: {"schema": SearchParameters.model_json_schema(), "example": {"patient": "PAT-4711"}}},
        }
    },
    responses={**FOUND, **FORM_RESPONSES},
)
async def search_by_form(kind: Kind, request: Request, services: ServicesDep) -> Response:
    """As `GET /fhir/{kind}`, with the parameters in the body, so that no patient ID stands in an address.

    Its links are those of the other search, and name what was searched. To go on without an address, send the same
    form with the `_after` of the link `next`.
    """
    _check_on(services)
    _check_kind(kind)
    if request.query_params:
        raise ApiError(422, "invalid_request", "parameters stand in the form alone")
    given = await _read_form(request)
    try:
        parameters = SearchParameters.model_validate(dict(given))
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from error
    return await _search(kind, parameters, given, request, services)


async def _search(
    kind: str, parameters: SearchParameters, given: list[tuple[str, str]], request: Request, services: Services
) -> Response:
    """The page that a search finds. given: the parameters as they came."""
    if len(given) > len({name for name, _ in given}):
        raise ApiError(422, "invalid_request", "a parameter is there twice")
    search = _read_search(kind, parameters, services)
    resources, last = await _find(services, search, parameters.after, min(parameters.count, MAX_PAGE_SIZE))
    base, others = _base_url(request), [(name, value) for name, value in given if name != "_after"]
    links = {"self": _make_url(base, kind, given)}
    if last is not None:
        links["next"] = _make_url(base, kind, [*others, ("_after", last)])
    return FhirResponse(build_searchset(resources, base, links, is_whole=last is None and not parameters.after))


@router.get(
    "/fhir/{kind}/{resource_id}",
    summary="Read a FHIR resource",
    response_class=FhirResponse,
    responses={
        **_describe_answer("The resource.", DEVICE),
        **READ_RESPONSES,
        **_describe_errors(404, **UNKNOWN_ERRORS, unknown_resource="there is none of this type and ID"),
    },
)
async def read_resource(
    kind: Kind, resource_id: Annotated[str, Path(description="A UUID.")], services: ServicesDep
) -> Response:
    """A resource. One that was revised stays as it was; the report of the next revision names it."""
    _check_on(services)
    _check_kind(kind)
    resources: list[Resource] = []
    if UUID.fullmatch(resource_id):
        search = Search(kind, not services.config.serve.modes.flag_only, resource_id=Token(None, resource_id))
        resources, _ = await _find(services, search, "", 1)
    if not resources:
        raise ApiError(404, "unknown_resource", f"there is no {kind} of this ID")
    return FhirResponse(resources[0])


async def _read_form(request: Request) -> list[tuple[str, str]]:
    """Reads names and values of a form.

    Raises:
        ApiError: The body is of another type, cut off, or no form in UTF-8.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise ApiError(415, "unsupported_media_type", f"send a form ({FORM})")
    try:
        text = (await request.body()).decode()
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
    except ClientDisconnect as error:
        raise ApiError(400, "incomplete_upload", "the connection ended before the form did") from error
    except ValueError as error:
        raise ApiError(422, "invalid_request", "the body is no form in UTF-8") from error


def _read_search(kind: str, parameters: SearchParameters, services: Services) -> Search:
    names = ("resource_id", "identifier", "patient", "study", "accession")
    try:
        tokens = {name: Token.parse(text) for name in names if (text := getattr(parameters, name)) is not None}
    except ValueError as error:
        raise ApiError(422, "invalid_request", str(error)) from error
    return Search(kind, not services.config.serve.modes.flag_only, **tokens)


async def _find(services: Services, search: Search, after: str, limit: int) -> tuple[list[Resource], str | None]:
    """Returns resources, and the ID of the last one if others follow."""
    assert services.intake is not None  # the endpoint tells of films
    pseudonyms = services.state.pseudonyms
    page = await services.state.read(find_page, search, pseudonyms, after, limit)
    flag_only = not search.with_findings
    language = services.config.report.outgoing
    resources = await asyncio.to_thread(_build, page.found, services.intake, pseudonyms, flag_only, language)
    return resources, page.found[-1].resource_id if page.has_more else None


def _build(*facts: Any) -> list[Resource]:
    """Calls `build_answers`, which loads pydicom: most endpoints do without it in their own process."""
    from serve.gateway.fhir.answers import build_answers

    return build_answers(*facts)


def _check_on(services: Services) -> None:
    if not services.config.gateway.fhir:
        raise ApiError(403, "fhir_off", OFF_ERRORS["fhir_off"])


def _check_kind(kind: str) -> None:
    if kind not in SERVED:
        raise ApiError(404, "unknown_type", UNKNOWN_ERRORS["unknown_type"])


def _base_url(request: Request) -> str:
    return f"{request.base_url}fhir"


def _make_url(base: str, kind: str, parameters: list[tuple[str, str]]) -> str:
    return f"{base}/{kind}?{urlencode(parameters)}" if parameters else f"{base}/{kind}"


def _refuse(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    outcome = build_outcome(problem.status, problem.code, problem.detail)
    return FhirResponse(outcome, problem.status, problem.find_headers(headers))
