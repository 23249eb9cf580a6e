"""What the endpoint answers in JSON; the OpenAPI document is made from these."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from chestai.bundle import Card
from chestai.notice import RESEARCH_USE
from chestai.triage import Bucket


class Served(BaseModel):
    """The model version that answered, and the dataset snapshot it learnt from."""

    name: str
    version: int
    snapshot: str
    synthetic: bool


class Driver(BaseModel):
    """A finding behind the triage score, and its weight * probability."""

    finding: str
    weighted: float


class Triage(BaseModel):
    """How soon the study should be read."""

    score: float
    bucket: Bucket
    drivers: list[Driver]


class Timings(BaseModel):
    """Milliseconds; `forward` is that of the whole batch the image was part of."""

    decode: float
    forward: float


class Answer(BaseModel):
    """One image's findings. `thresholds` are operating points, null where a finding has none."""

    image_id: str
    file_name: str | None = None
    probabilities: dict[str, float]
    triage: Triage
    thresholds: dict[str, float | None]
    positives: list[str]
    model: Served
    notice: str = RESEARCH_USE
    timings_ms: Timings


class Health(BaseModel):
    """Answered by a model replica, so `ok` means that a model is loaded."""

    status: str = "ok"
    model: Served
    notice: str = RESEARCH_USE


class ServedCard(Card):
    """The card of the bundle that is served, and its version in the registry."""

    version: int


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

    def response(self) -> Response:
        return JSONResponse(self.model_dump(), self.status, media_type="application/problem+json")


def documented(status: int, when: str) -> dict[int | str, dict[str, Any]]:
    """An entry of a route's `responses` for a problem that it may answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": when, "content": {"application/problem+json": {"schema": schema}}}}
