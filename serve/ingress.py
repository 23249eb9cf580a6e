"""The HTTP side: routes, upload limit, and every error as a problem document."""

import asyncio
import logging
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chestai import pixels
from chestai.lake import Lake
from chestai.notice import RESEARCH_USE
from serve.answers import Answer, Health, Problem, ServedCard, documented
from serve.inputs import Refused, received, stored

log = logging.getLogger("ray.serve")

UPLOAD = {
    "requestBody": {
        "required": True,
        "description": "A PNG or JPEG: as the form field `file`, or as the body itself.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
PNG: dict[str, Any] = {"image/png": {"schema": {"type": "string", "format": "binary"}}}

app = FastAPI(
    title="ChestAI",
    description=f"Chest X-ray findings, triage and Grad-CAM. **{RESEARCH_USE}**",
    responses={
        "default": {
            "model": Problem,
            "description": "Every error is a problem document (RFC 9457) with a stable `code`.",
        }
    },
)


@app.exception_handler(Refused)
async def _refused(request: Request, error: Refused) -> Response:
    return error.problem.response()


@app.exception_handler(RequestValidationError)
async def _invalid(request: Request, error: RequestValidationError) -> Response:
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return Problem.of(422, "invalid_request", "; ".join(faults)).response()


@app.exception_handler(HTTPException)
async def _http(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return Problem.of(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}").response()


@app.exception_handler(Exception)
async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Problem.of(500, "internal_error", "the server failed; its log holds the reason").response()


def _image(result: bytes | Problem) -> Response:
    return result.response() if isinstance(result, Problem) else Response(result, media_type="image/png")


@serve.ingress(app)
class Ingress:
    """Holds no model: it checks what comes in and passes the bytes on.

    `serve.ingress` pickles the routes here and now: what they call must be defined above or imported.
    """

    def __init__(self, model: DeploymentHandle, lake: str, max_upload_mb: int) -> None:
        self.model = model
        self.lake = Lake(lake)
        self.max_upload_mb = max_upload_mb

    @app.post(
        "/infer",
        response_model=Answer,
        openapi_extra=UPLOAD,
        responses={
            200: {"content": PNG, "description": "Findings and triage; with `explain` the overlay instead."},
            **documented(413, "`upload_too_large`"),
            **documented(
                422,
                f"Not scored: {', '.join(f'`{reason}`' for reason in pixels.REASONS)}; "
                "or `missing_file`, `unknown_finding`, `invalid_request`",
            ),
        },
    )
    async def infer(
        self,
        request: Request,
        explain: Annotated[str | None, Query(description="A finding: answer its Grad-CAM as a PNG.")] = None,
    ) -> Answer | Response:
        """Probability of every finding and the triage bucket of one chest radiograph (PNG, JPEG or DICOM)."""
        data, file_name = await received(request, self.max_upload_mb * 2**20)
        if explain is not None:
            return _image(await self.model.overlay.remote(data, explain))
        answer: Answer | Problem = await self.model.infer.remote(data)
        if isinstance(answer, Problem):
            return answer.response()
        return answer.model_copy(update={"file_name": file_name})

    @app.get(
        "/images/{image_id}/heatmap",
        response_class=Response,
        responses={
            200: {"content": PNG, "description": "The overlay."},
            **documented(404, "`unknown_image`, or `image_file_missing`: known, but its file is gone"),
            **documented(422, "`unknown_finding`, or as for `/infer` where the file is damaged"),
        },
    )
    async def heatmap(
        self, image_id: str, label: Annotated[str, Query(description="A finding of the model.")]
    ) -> Response:
        """Grad-CAM overlay of an image of the lake's newest snapshot."""
        data = await asyncio.to_thread(stored, self.lake, image_id)
        return _image(await self.model.overlay.remote(data, label))

    @app.get("/health")
    async def health(self) -> Health:
        """Whether a model is loaded, and which."""
        return Health(model=await self.model.served.remote())

    @app.get("/model")
    async def card(self) -> ServedCard:
        """The card of the served model: findings, calibration, operating points, triage rule, provenance."""
        served: ServedCard = await self.model.card.remote()
        return served
