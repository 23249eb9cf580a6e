"""The FastAPI application: its routes, and every error as a problem document."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chestai.notice import RESEARCH_USE
from serve.api.body_limits import capped
from serve.api.openapi import FORBIDDEN
from serve.api.routes import api_keys, heatmaps, infer, jobs, operations, studies
from serve.api.security import authorise_request
from serve.api.services import Services
from serve.monitoring.middleware import RequestMetrics
from serve.problems import ApiError, Problem, documented

log = logging.getLogger("ray.serve")

CODES = {404: "not_found", 405: "method_not_allowed", 413: "upload_too_large"}  # of what FastAPI refuses itself


def create_app(services: Services) -> FastAPI:
    """The application over these services. It needs no Ray: any ASGI server runs it."""
    app = FastAPI(
        title="ChestAI",
        description=f"Chest X-ray findings, triage and Grad-CAM. **{RESEARCH_USE}**",
        responses={
            "default": {
                "description": "Every error is a problem document (RFC 9457) with a stable `code`; besides those of a "
                "route: `not_found`, `method_not_allowed`, `internal_error`.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
            **documented(401, unauthorised="no key or token that is good"),
            **documented(403, **FORBIDDEN),
            **documented(429, too_many_requests="more than auth.requests_per_minute"),
        },
        dependencies=[Depends(authorise_request)],
        lifespan=_lifespan,
    )
    app.add_middleware(RequestMetrics, reporter=services.notices)
    app.state.services = services
    app.add_middleware(capped)
    for routes in (infer, jobs, studies, heatmaps, operations, api_keys):
        app.include_router(routes.router)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What goes on beside the requests."""
    services: Services = app.state.services
    async with services.notices.periodic_flush():
        yield


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.problem.response(error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return Problem.of(422, "invalid_request", "; ".join(faults)).response()


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "invalid_request")
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return Problem.of(error.status_code, code, detail).response(error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Problem.of(500, "internal_error", "the server failed; its log holds the reason").response()
