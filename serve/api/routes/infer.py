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
from serve.api.score_image import ScoredImage, draw_overlay, findings_to_explain, receive_image, score_upload
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep
from serve.api.uploads import FORM, IMAGES, JSON, ImageReference, Upload, received_all
from serve.auth.permissions import Principal
from serve.problems import ApiError, documented
from serve.schemas import BatchResponse, FindingsResponse, FlaggedResponse, InferResponse, NotScored


async def _early(services: ServicesDep) -> None:
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


ONE = _upload(FILE, "file", **dict.fromkeys(IMAGES, BINARY), **{JSON: {"schema": ImageReference.model_json_schema()}})
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
    response_model=InferResponse | FlaggedResponse,
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
    services: ServicesDep,
    who: CurrentPrincipal,
    explain: Annotated[
        list[str],
        Query(
            description="Findings to draw, or `top`: what drives the triage score, if it is reached.",
            examples=[["top"]],
        ),
    ] = [],  # noqa: B006
) -> InferResponse | FlaggedResponse | Response:
    """Probability of every finding, the triage bucket and overlays of one chest radiograph."""
    modes, as_png = services.config.serve.modes, request.headers.get("accept", "").startswith("image/png")
    if explain or as_png:
        check_overlays(modes)
    upload = await receive_image(services, who, "infer", request)
    async with services.in_time():
        image = await score_upload(services, who, "infer", upload)
        if as_png:
            return await _as_png(image, explain)
        return image.flag() if modes.flag_only else await image.answer(explain)


@router.post(
    "/predict",
    summary="Score one radiograph, findings only",
    response_model=FindingsResponse | FlaggedResponse,
    openapi_extra=ONE,
    responses={200: {"content": FOUND}, **documented(422, **NOT_SCORED, **MISNAMED, **WRONG), **ALONE},
)
async def predict(request: Request, services: ServicesDep, who: CurrentPrincipal) -> FindingsResponse | FlaggedResponse:
    """The findings alone of one chest radiograph: no triage, no overlay."""
    upload = await receive_image(services, who, "predict", request)
    async with services.in_time():
        return (await score_upload(services, who, "predict", upload)).told(services.config.serve.modes)


@router.post(
    "/batch_predict",
    summary="Score several radiographs",
    response_model=BatchResponse,
    openapi_extra=SEVERAL,
    responses={
        200: {"content": ANSWERED_EACH},
        **UNREAD,
        **documented(413, **TOO_LARGE, too_many_files="the form has more than serve.max_files"),
        **documented(422, **MISNAMED),
        **OVERLOADED,
    },
)
async def batch_predict(request: Request, services: ServicesDep, who: CurrentPrincipal) -> BatchResponse:
    """The findings of several chest radiographs, each on its own: one that cannot be scored spoils no other."""
    limits = services.config.serve
    uploads = await received_all(request, limits.max_upload_mb * 2**20, limits.max_files)
    async with services.in_time():
        return BatchResponse(results=await asyncio.gather(*(_of_batch(services, who, upload) for upload in uploads)))


async def _of_batch(
    services: Services, who: Principal, upload: Upload
) -> FindingsResponse | FlaggedResponse | NotScored:
    try:
        return (await score_upload(services, who, "predict", upload)).told(services.config.serve.modes)
    except ApiError as refused:
        if refused.problem.status == 503:
            raise
        return NotScored(file_name=upload.name, not_scored=refused.problem)


async def _as_png(image: ScoredImage, asked: list[str]) -> Response:
    findings = findings_to_explain(image.scored, asked)
    if len(findings) != 1:
        raise ApiError(
            406, "not_one_overlay", f"a PNG holds one overlay, and {len(findings)} are meant: name a finding"
        )
    return Response(await draw_overlay(image.grey, image.scored, findings[0]), media_type="image/png")
