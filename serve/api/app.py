"""The FastAPI application: its routes, and its errors as problem documents."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chestai import RESEARCH_USE
from serve.api.http_security import SecuredApp
from serve.api.openapi import FORBIDDEN_ERRORS
from serve.api.request_limits import RequestLimits
from serve.api.routes import (
    api_keys,
    dicomweb,
    fhir,
    images,
    infer,
    jobs,
    model,
    operations,
    pages,
    reviews,
    search,
    session,
    studies,
    ui,
)
from serve.api.security import authorise_request
from serve.api.services import Services
from serve.monitoring.middleware import RequestMetrics
from serve.problems import ApiError, Problem, error_responses
from serve.schemas.answer import restore_nulls

log = logging.getLogger("ray.serve")

ROUTES = (
    pages,
    infer,
    jobs,
    studies,
    reviews,
    images,
    search,
    model,
    operations,
    api_keys,
    session,
    dicomweb,
    fhir,
    ui,
)
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}  # of errors that FastAPI raises


class DocumentedApp(SecuredApp):
    """An application whose OpenAPI document has whole examples."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        restore_nulls(document["components"]["schemas"])
        return document


def create_app(services: Services) -> FastAPI:
    """Creates the application. It needs no Ray: any ASGI server runs it."""
    app = create_routes()
    app.state.services = services
    app.add_middleware(RequestMetrics, reporter=services.reporter)
    app.add_middleware(RequestLimits, budget=services.memory)
    return app


def create_routes() -> FastAPI:
    """Creates the application without services: it has its OpenAPI document, and cannot run."""
    app = DocumentedApp(
        title="ChestAI",
        docs_url=None,  # `routes.ui` has it
        redoc_url=None,
        description=f"Chest X-ray findings, triage and Grad-CAM. **{RESEARCH_USE}**",
        responses={
            "default": {
                "description": "Every error is a problem document (RFC 9457) with a stable `code`, or below `/fhir` an "
                "OperationOutcome. Every route may return `not_found`, `method_not_allowed` and `internal_error`.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
            **error_responses(401, unauthorised="no valid key or token"),
            **error_responses(403, **FORBIDDEN_ERRORS),
            **error_responses(421, unknown_host="the `Host` is neither localhost, nor the address, nor in serve.hosts"),
            **error_responses(429, too_many_requests="more requests than auth.requests_per_minute allows"),
        },
        dependencies=[Depends(authorise_request)],
        lifespan=_lifespan,
    )
    for routes in ROUTES:
        app.include_router(routes.router)
    app.add_exception_handler(ApiError, _handle_api_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(Exception, _handle_exception)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Sends events to the monitor, and records refused requests, while the application runs."""
    services: Services = app.state.services
    async with services.reporter.periodic_flush(), services.state.refusals.periodic_flush():
        yield
    services.decoder.close()


async def _handle_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.problem.to_response(error.headers)


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return Problem.of_request(error).to_response()


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "invalid_request")
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return Problem.of(error.status_code, code, detail).to_response(error.headers)


async def _handle_exception(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Problem.of(500, "internal_error", "the server failed; its log has the reason").to_response()
