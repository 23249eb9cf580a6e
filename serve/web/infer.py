"""Findings, triage and overlays of images that come with the request."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from chestai import pixels
from chestai.intake import REASONS as UNLIKE
from serve.answers import Answer, Batch, Findings, NotScored
from serve.auth.access import Principal
from serve.problems import Refused, documented
from serve.web.guard import Who
from serve.web.reading import Seen, drawn, explained, seen
from serve.web.services import Services, Used
from serve.web.uploads import Upload, received, received_all

router = APIRouter(tags=["images of the request"])

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
PNG: dict[str, Any] = {"image/png": BINARY}


def _upload(field: dict[str, Any], required: str, *others: str) -> dict[str, Any]:
    form = {"schema": {"type": "object", "required": [required], "properties": {required: field}}}
    return {
        "requestBody": {
            "required": True,
            "description": "PNG, JPEG or DICOM.",
            "content": {"multipart/form-data": form, **dict.fromkeys(others, BINARY)},
        }
    }


FILE = {"type": "string", "format": "binary", "description": "The image, with its name."}
ONE = _upload(FILE, "file", "image/png", "image/jpeg", "application/dicom")
SEVERAL = _upload({"type": "array", "items": FILE}, "files")
REFUSALS = {
    **documented(413, "`upload_too_large`, `too_many_files`"),
    **documented(
        422,
        f"Not scored: {', '.join(f'`{reason}`' for reason in (*pixels.REASONS, *UNLIKE))}; "
        "or `missing_file`, `unknown_finding`, `invalid_request`",
    ),
    **documented(503, "`overloaded`, `state_full`; when to try again is in `Retry-After`"),
}


@router.post(
    "/infer",
    response_model=Answer,
    openapi_extra=ONE,
    responses={
        200: {"content": PNG, "description": "As a PNG: one overlay, for `Accept: image/png` and one finding."},
        **documented(406, "`not_one_overlay`: a PNG was asked for, but not of one finding"),
        **REFUSALS,
    },
)
async def infer(
    request: Request,
    services: Used,
    who: Who,
    explain: Annotated[
        list[str], Query(description="Findings to draw, or `top`: what drives the triage score, if it is reached.")
    ] = [],  # noqa: B006
) -> Answer | Response:
    """Probability of every finding, the triage bucket and overlays of one chest radiograph."""
    upload = await received(request, services.config.serve.max_upload_mb * 2**20)
    async with services.in_time():
        image = await seen(services, who, "infer", upload)
        if request.headers.get("accept", "").startswith("image/png"):
            return await _as_png(image, explain)
        return await image.answer(explain)


@router.post("/predict", response_model=Findings, openapi_extra=ONE, responses=REFUSALS)
async def predict(request: Request, services: Used, who: Who) -> Findings:
    """The findings alone of one chest radiograph: no triage, no overlay."""
    upload = await received(request, services.config.serve.max_upload_mb * 2**20)
    async with services.in_time():
        return (await seen(services, who, "predict", upload)).findings()


@router.post("/batch_predict", response_model=Batch, openapi_extra=SEVERAL, responses=REFUSALS)
async def batch_predict(request: Request, services: Used, who: Who) -> Batch:
    """The findings of several chest radiographs, each on its own: one that cannot be scored spoils no other."""
    limits = services.config.serve
    uploads = await received_all(request, limits.max_upload_mb * 2**20, limits.max_files)
    async with services.in_time():
        return Batch(results=await asyncio.gather(*(_of_batch(services, who, upload) for upload in uploads)))


async def _of_batch(services: Services, who: Principal, upload: Upload) -> Findings | NotScored:
    try:
        return (await seen(services, who, "predict", upload)).findings()
    except Refused as refused:
        if refused.problem.status == 503:
            raise
        return NotScored(file_name=upload.name, not_scored=refused.problem)


async def _as_png(image: Seen, asked: list[str]) -> Response:
    findings = explained(image.scored, asked)
    if len(findings) != 1:
        raise Refused(406, "not_one_overlay", f"a PNG holds one overlay, and {len(findings)} are meant: name a finding")
    return Response(await drawn(image.grey, image.scored, findings[0]), media_type="image/png")
