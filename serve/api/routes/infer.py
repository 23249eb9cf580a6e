"""Findings, triage and overlays of the images in a request."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from serve.api.display_modes import OVERLAYS_OFF_ERRORS, check_overlays
from serve.api.openapi import (
    BINARY,
    FINDING_ERRORS,
    FORBIDDEN_ERRORS,
    FORM_ERRORS,
    NOT_SCORED_ERRORS,
    OVERLOADED_RESPONSES,
    PARAMETER_ERRORS,
    PNG,
    UPLOAD_RESPONSES,
    UPLOAD_SIZE_ERRORS,
)
from serve.api.score_image import ScoredImage, draw_finding, receive_image, score_upload, select_findings
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep
from serve.api.uploads import FORM_TYPE, IMAGE_TYPES, JSON_TYPE, Upload, read_uploads
from serve.auth.permissions import Principal
from serve.problems import ApiError, error_responses
from serve.schemas.inference import (
    BatchResponse,
    FindingsResponse,
    FlaggedResponse,
    ImageReference,
    InferResponse,
    NotScored,
)


async def _check_slot(services: ServicesDep) -> None:
    """Rejects a request over the limit before its body is read; reading may take long, and holds no slot."""
    services.admission.check_slot()


router = APIRouter(tags=["images of the request"], dependencies=[Depends(_check_slot)])

FILE = {"type": "string", "format": "binary", "description": "The image, with its name."}


def _document_body(field: str, schema: dict[str, Any], **others: dict[str, Any]) -> dict[str, Any]:
    """Creates a route's `openapi_extra`: a form with this field, or a body of another media type."""
    form = {"schema": {"type": "object", "required": [field], "properties": {field: schema}}}
    content = {FORM_TYPE: form, **others}
    return {"requestBody": {"required": True, "description": "PNG, JPEG or DICOM.", "content": content}}


SINGLE_BODY = _document_body(
    "file", FILE, **dict.fromkeys(IMAGE_TYPES, BINARY), **{JSON_TYPE: {"schema": ImageReference.model_json_schema()}}
)
BATCH_BODY = _document_body("files", {"type": "array", "items": FILE})
URI_ERRORS = {"prefix_not_allowed": "the URI is below none of serve.prefixes"}
SINGLE_RESPONSES = {
    **UPLOAD_RESPONSES,
    **error_responses(403, **FORBIDDEN_ERRORS, **URI_ERRORS),
    **error_responses(404, unknown_uri="no readable file is at the URI"),
    **error_responses(413, **UPLOAD_SIZE_ERRORS, too_many_files="the form has more than one"),
    **error_responses(415, unsupported_media_type="the declared type is neither a form, JSON nor an image"),
    **OVERLOADED_RESPONSES,
}


@router.post(
    "/infer",
    summary="Score and explain one radiograph",
    response_model=InferResponse | FlaggedResponse,
    openapi_extra=SINGLE_BODY,
    responses={
        200: {"content": PNG, "description": "As a PNG: one overlay, for `Accept: image/png` and one finding."},
        **error_responses(406, not_one_overlay="a PNG was requested, but not for exactly one finding"),
        **error_responses(422, **NOT_SCORED_ERRORS, **FORM_ERRORS, **FINDING_ERRORS),
        **SINGLE_RESPONSES,
        **error_responses(403, **FORBIDDEN_ERRORS, **URI_ERRORS, **OVERLAYS_OFF_ERRORS),
    },
)
async def infer(
    request: Request,
    services: ServicesDep,
    principal: CurrentPrincipal,
    explain: Annotated[
        list[str],
        Query(
            description="Findings to draw, or `top`: what drives the triage score, if it reaches its operating point.",
            examples=[["top"]],
        ),
    ] = [],  # noqa: B006
    evidence: Annotated[bool, Query(description="Also return what the heatmaps are drawn from.")] = False,
    prior: Annotated[bool, Query(description="An earlier film, to compare with: it is not in the worklist.")] = False,
) -> InferResponse | FlaggedResponse | Response:
    """Probability of every finding, the triage bucket and overlays of one chest radiograph."""
    modes, as_png = services.config.serve.modes, request.headers.get("accept", "").startswith("image/png")
    if explain or evidence or as_png:
        check_overlays(modes)
    upload = await receive_image(services, principal, "infer", request)
    async with services.admission.deadline():
        image = await score_upload(services, principal, "infer", upload, prior)
        if as_png:
            return await _draw_png(image, explain)
        return image.to_flag() if modes.flag_only else await image.explain(explain, evidence)


@router.post(
    "/predict",
    summary="Score one radiograph, findings only",
    response_model=FindingsResponse | FlaggedResponse,
    openapi_extra=SINGLE_BODY,
    responses={**error_responses(422, **NOT_SCORED_ERRORS, **FORM_ERRORS, **PARAMETER_ERRORS), **SINGLE_RESPONSES},
)
async def predict(
    request: Request, services: ServicesDep, principal: CurrentPrincipal
) -> FindingsResponse | FlaggedResponse:
    """Only the findings of one chest radiograph: no triage, no overlay."""
    upload = await receive_image(services, principal, "predict", request)
    async with services.admission.deadline():
        image = await score_upload(services, principal, "predict", upload)
        return image.to_findings_or_flag(services.config.serve.modes)


@router.post(
    "/batch_predict",
    summary="Score several radiographs",
    response_model=BatchResponse,
    openapi_extra=BATCH_BODY,
    responses={
        **UPLOAD_RESPONSES,
        **error_responses(413, **UPLOAD_SIZE_ERRORS, too_many_files="the form has more than serve.max_files"),
        **error_responses(422, **FORM_ERRORS),
        **OVERLOADED_RESPONSES,
    },
)
async def batch_predict(request: Request, services: ServicesDep, principal: CurrentPrincipal) -> BatchResponse:
    """The findings of several chest radiographs; one that cannot be scored does not affect the others."""
    limits = services.config.serve
    uploads = await read_uploads(request, limits.max_upload_mb * 2**20, limits.max_files)
    async with services.admission.deadline():
        results = await asyncio.gather(*(_score_batch_file(services, principal, upload) for upload in uploads))
        return BatchResponse(results=results)


async def _score_batch_file(
    services: Services, principal: Principal, upload: Upload
) -> FindingsResponse | FlaggedResponse | NotScored:
    try:
        image = await score_upload(services, principal, "predict", upload)
    except ApiError as error:
        if error.problem.status == 503:
            raise
        return NotScored(file_name=upload.name, not_scored=error.problem)
    return image.to_findings_or_flag(services.config.serve.modes)


async def _draw_png(image: ScoredImage, requested: list[str]) -> Response:
    findings = select_findings(image.result, requested)
    if len(findings) != 1:
        detail = f"a PNG holds one overlay, and {len(findings)} are requested: name one finding"
        raise ApiError(406, "not_one_overlay", detail)
    return Response(
        await draw_finding(image.grey, image.result, findings[0], image.upload.memory), media_type="image/png"
    )
