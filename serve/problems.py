"""Errors of the endpoint: each is a problem document (RFC 9457) with a stable code."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict
from starlette.responses import JSONResponse, Response

from chestai import RESEARCH_USE
from chestai.imaging.errors import Unreadable
from serve.schemas.answer import Answer

RETRY_AFTER_S = 1  # for a client that finds the queue full
NOT_SCORED = "not scored: "  # begins the detail of a problem of an image
RETRY_STATUSES = (429, 503)  # responses with a Retry-After header


class Problem(Answer):
    """A problem document of RFC 9457. `code` is stable and for programs, `detail` is for people."""

    model_config = ConfigDict(frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    notice: str = RESEARCH_USE

    @classmethod
    def of(cls, status: int, code: str, detail: str) -> "Problem":
        """Creates a problem; its title is the name of its status, as RFC 9457 asks of `about:blank`."""
        return cls(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)

    @classmethod
    def of_request(cls, error: RequestValidationError) -> "Problem":
        """Creates the problem of a request with wrong parameters: it names them, and quotes no value."""
        faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        return cls.of(422, "invalid_request", "; ".join(faults))

    def find_headers(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of its response. headers: added to them; they replace the default `Retry-After`."""
        retry = {"Retry-After": str(RETRY_AFTER_S)} if self.status in RETRY_STATUSES else {}
        return {**retry, **(headers or {})}

    def to_response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Creates the HTTP response. headers: as in `find_headers`."""
        content, more = self.model_dump(), self.find_headers(headers)
        return JSONResponse(content, self.status, more, media_type="application/problem+json")


class ApiError(HTTPException):
    """An error that the endpoint returns as a problem document.

    A kind of HTTPException because FastAPI hides all others that are raised while it reads a body.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.problem = Problem.of(status, code, detail)
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.problem.detail


def not_scored_error(error: Unreadable) -> ApiError:
    """Creates the error for an unusable image. Its code is one of `chestai.imaging.errors.REASONS`."""
    return ApiError(422, error.reason, NOT_SCORED + error.detail)


def overloaded_error(detail: str) -> ApiError:
    """Creates the error for a full queue or a passed deadline; the response has a `Retry-After` header."""
    return ApiError(503, "overloaded", detail)


def error_responses(status: int, **codes: str) -> dict[int | str, dict[str, Any]]:
    """Creates the entry of a route's `responses` that documents its errors of one status.

    Args:
        codes: Every possible code, and when it is returned.
    """
    problem = {"$ref": "#/components/schemas/Problem"}
    schema = {"allOf": [problem, {"type": "object", "properties": {"code": {"enum": [*codes]}}}]}
    examples = {code: {"value": Problem.of(status, code, when).model_dump()} for code, when in codes.items()}
    entry: dict[str, Any] = {
        "description": "; ".join(f"`{code}`: {when}" for code, when in codes.items()),
        "content": {"application/problem+json": {"schema": schema, "examples": examples}},
    }
    if status in RETRY_STATUSES:
        retry = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
        entry["headers"] = {"Retry-After": {"required": True, **retry}}
    return {status: entry}
