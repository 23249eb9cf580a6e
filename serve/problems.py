"""Every error of the endpoint as a problem document (RFC 9457) with a stable code."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from chestai.imaging.errors import Unreadable
from chestai.notice import RESEARCH_USE

RETRY_AFTER_S = 1  # what a client that found the queue full is told to wait
WAITED_FOR = (429, 503)  # statuses that say when to try again


class Problem(BaseModel):
    """A problem as of RFC 9457. `code` is stable and for programs, `detail` is for a person."""

    model_config = ConfigDict(frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    notice: str = RESEARCH_USE

    @classmethod
    def of(cls, status: int, code: str, detail: str) -> "Problem":
        """A problem titled, as RFC 9457 asks of `about:blank`, by its status."""
        return cls(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        more = {"Retry-After": str(RETRY_AFTER_S)} if self.status in WAITED_FOR else {}
        return JSONResponse(
            self.model_dump(), self.status, {**more, **(headers or {})}, media_type="application/problem+json"
        )


class ApiError(Exception):
    """A request that is answered by a problem."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem.of(status, code, detail)
        self.headers = dict(headers or {})


def not_scored(error: Unreadable) -> ApiError:
    """An image that cannot be scored; the code is one of `chestai.imaging.errors.REASONS`."""
    return ApiError(422, error.reason, f"not scored: {error.detail}")


def overloaded(detail: str) -> ApiError:
    """The queue is full, or an answer took too long; the client is told when to try again."""
    return ApiError(503, "overloaded", detail)


def documented(status: int, **codes: str) -> dict[int | str, dict[str, Any]]:
    """An entry of a route's `responses` for the problems that it may answer.

    Args:
        codes: when each is answered, by code; the document says that there are no others.
    """
    problem = {"$ref": "#/components/schemas/Problem"}
    schema = {"allOf": [problem, {"type": "object", "properties": {"code": {"enum": [*codes]}}}]}
    examples = {code: {"value": Problem.of(status, code, when).model_dump()} for code, when in codes.items()}
    entry: dict[str, Any] = {
        "description": "; ".join(f"`{code}`: {when}" for code, when in codes.items()),
        "content": {"application/problem+json": {"schema": schema, "examples": examples}},
    }
    if status in WAITED_FOR:
        wait = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
        entry["headers"] = {"Retry-After": {"required": True, **wait}}
    return {status: entry}
