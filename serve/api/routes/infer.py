"""Findings, triage and overlays of images that come with the request."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from serve.api.display_modes import OVERLAYS_OFF, check_overlays
from serve.api.openapi import (
    ANSWERED,
    ANSWERED_EACH,
    BINARY,
    FORBIDDEN,
    FOUND,
    MISNAMED,
    NOT_SCORED,
    OVERLOADED,
    PNG,
    TOO_LARGE,
    UNKNOWN,
    UNREAD,
    WRONG,
)
from serve.api.score_image import Seen, drawn, explained, given, seen
from serve.api.security import Who
from serve.api.services import Services, Used
from serve.api.uploads import FORM, IMAGES, JSON, Named, Upload, received_all
from serve.auth.permissions import Principal
from serve.problems import Refused, documented
from serve.schemas import Answer, Batch, Findings, Flagged, NotScored


async def _early(services: Used) -> None:
    """Refuse before the body is read; while it is, which may take long, it has no place."""
    services.check_place()


router = APIRouter(tags=["images of the request"], dependencies=[Depends(_early)])

FILE = {"type": "string", "format": "binary", "description": "The image, with its name."}


def _upload(field: dict[str, Any], required: str, **others: dict[str, Any]) -> dict[str, Any]:
    form = {"schema": {"type": "object", "required": [required], "properties": {required: field}}}
    return {
        "requestBody": {
            "required": True,
            "description": "PNG, JPEG or DICOM.",
            "content": {FORM: form, **others},
        }
    }


ONE = _upload(FILE, "file", **dict.fromkeys(IMAGES, BINARY), **{JSON: {"schema": Named.model_json_schema()}})
SEVERAL = _upload({"type": "array", "items": FILE}, "files")
NOT_ALLOWED = {"prefix_not_allowed": "the URI lies below none of serve.prefixes"}
ALONE = {
    **UNREAD,
    **documented(403, **FORBIDDEN, **NOT_ALLOWED),
    **documented(404, unknown_uri="no file that can be read is at the URI"),
    **documented(413, **TOO_LARGE, too_many_files="the form has more than one"),
    **documented(415, unsupported_media_type="the body is declared to be neither a form, a URI nor an image"),
    **OVERLOADED,
}


@router.post(
    "/infer",
    summary="Score and explain one radiograph",
    response_model=Answer | Flagged,
    openapi_extra=ONE,
    responses={
        200: {
            "content": {**ANSWERED, **PNG},
            "description": "As a PNG: one overlay, for `Accept: image/png` and one finding.",
        },
        **documented(406, not_one_overlay="a PNG was asked for, but not of one finding"),
        **documented(422, **NOT_SCORED, **MISNAMED, **UNKNOWN),
        **ALONE,
        **documented(403, **FORBIDDEN, **NOT_ALLOWED, **OVERLAYS_OFF),
    },
)
async def infer(
    request: Request,
    services: Used,
    who: Who,
    explain: Annotated[
        list[str],
        Query(
            description="Findings to draw, or `top`: what drives the triage score, if it is reached.",
            examples=[["top"]],
        ),
    ] = [],  # noqa: B006
) -> Answer | Flagged | Response:
    """Probability of every finding, the triage bucket and overlays of one chest radiograph."""
    modes, as_png = services.config.serve.modes, request.headers.get("accept", "").startswith("image/png")
    if explain or as_png:
        check_overlays(modes)
    upload = await given(services, who, "infer", request)
    async with services.in_time():
        image = await seen(services, who, "infer", upload)
        if as_png:
            return await _as_png(image, explain)
        return image.flag() if modes.flag_only else await image.answer(explain)


@router.post(
    "/predict",
    summary="Score one radiograph, findings only",
    response_model=Findings | Flagged,
    openapi_extra=ONE,
    responses={200: {"content": FOUND}, **documented(422, **NOT_SCORED, **MISNAMED, **WRONG), **ALONE},
)
async def predict(request: Request, services: Used, who: Who) -> Findings | Flagged:
    """The findings alone of one chest radiograph: no triage, no overlay."""
    upload = await given(services, who, "predict", request)
    async with services.in_time():
        return (await seen(services, who, "predict", upload)).told(services.config.serve.modes)


@router.post(
    "/batch_predict",
    summary="Score several radiographs",
    response_model=Batch,
    openapi_extra=SEVERAL,
    responses={
        200: {"content": ANSWERED_EACH},
        **UNREAD,
        **documented(413, **TOO_LARGE, too_many_files="the form has more than serve.max_files"),
        **documented(422, **MISNAMED),
        **OVERLOADED,
    },
)
async def batch_predict(request: Request, services: Used, who: Who) -> Batch:
    """The findings of several chest radiographs, each on its own: one that cannot be scored spoils no other."""
    limits = services.config.serve
    uploads = await received_all(request, limits.max_upload_mb * 2**20, limits.max_files)
    async with services.in_time():
        return Batch(results=await asyncio.gather(*(_of_batch(services, who, upload) for upload in uploads)))


async def _of_batch(services: Services, who: Principal, upload: Upload) -> Findings | Flagged | NotScored:
    try:
        return (await seen(services, who, "predict", upload)).told(services.config.serve.modes)
    except Refused as refused:
        if refused.problem.status == 503:
            raise
        return NotScored(file_name=upload.name, not_scored=refused.problem)


async def _as_png(image: Seen, asked: list[str]) -> Response:
    findings = explained(image.scored, asked)
    if len(findings) != 1:
        raise Refused(406, "not_one_overlay", f"a PNG holds one overlay, and {len(findings)} are meant: name a finding")
    return Response(await drawn(image.grey, image.scored, findings[0]), media_type="image/png")
