"""Images that the endpoint can read again, from the lake, the image store or their URI: file, preview, heatmap, map."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from chestai.imaging.preprocess import Grey
from serve.api.display_modes import OVERLAYS_OFF_ERRORS, check_overlays
from serve.api.openapi import (
    BINARY,
    FINDING_ERRORS,
    FORBIDDEN_ERRORS,
    NOT_SCORED_ERRORS,
    OVERLOADED_RESPONSES,
    PARAMETER_ERRORS,
    PNG,
    ImageId,
    Prefetch,
)
from serve.api.request_limits import memory_account
from serve.api.score_image import decode_image, draw_finding, select_findings
from serve.api.services import Services, ServicesDep
from serve.db.models import ImageRow
from serve.inference.pictures import draw_map, draw_preview
from serve.problems import ApiError, error_responses
from serve.storage.stored_images import SHA256

router = APIRouter(tags=["stored images"])

CONTENT_TYPES = ("image/png", "image/jpeg", "application/dicom")
URI_ERRORS = {"prefix_not_allowed": "its URI is not allowed any more"}
MISSING_ERRORS = {
    "unknown_image": "neither recorded nor in the newest snapshot",
    "image_not_kept": "recorded, but its file was not kept (state.keep_images)",
    "image_file_missing": "known, but its file is missing or has changed",
}
STORED_IMAGE_RESPONSES = {
    **error_responses(403, **FORBIDDEN_ERRORS, **URI_ERRORS),
    **error_responses(404, **MISSING_ERRORS),
    **error_responses(422, **PARAMETER_ERRORS),
}


@router.get(
    "/images/{image_id}/heatmap",
    summary="Explain a stored image",
    response_class=Response,
    responses={
        200: {"content": PNG, "description": "The overlay."},
        **error_responses(403, **FORBIDDEN_ERRORS, **OVERLAYS_OFF_ERRORS, **URI_ERRORS),
        **error_responses(
            404,
            **MISSING_ERRORS,
            nothing_to_show="`top` was requested, and no finding reaches its operating point",
            not_found="the name is empty or has a slash",
        ),
        **error_responses(422, **NOT_SCORED_ERRORS, **FINDING_ERRORS),
        **OVERLOADED_RESPONSES,
    },
)
async def draw_heatmap(
    image_id: Annotated[str, Path(description="From gold/images, or of a response.", examples=["00000088_000"])],
    services: ServicesDep,
    request: Request,
    label: Annotated[str, Query(description="A finding of the model, or `top`.", examples=["Pneumothorax"])],
) -> Response:
    """Grad-CAM overlay of an image in the lake's newest snapshot, or of one that was stored or named by a URI."""
    check_overlays(services.config.serve.modes)
    async with services.admission.deadline(), services.admission.slot():
        grey = await decode_stored_image(services, image_id, request)
        result = await services.model.scorer.score(grey)
        findings = select_findings(result, [label])
        if not findings:
            raise ApiError(404, "nothing_to_show", "no finding of the triage score reaches its operating point")
        return Response(await draw_finding(grey, result, findings[0], memory_account(request)), media_type="image/png")


@router.get(
    "/images/{image_id}/file",
    summary="The file of an image",
    response_class=Response,
    responses={
        200: {"content": {kind: BINARY for kind in CONTENT_TYPES}, "description": "The bytes as they were received."},
        304: {"description": "The client has them: `If-None-Match` names this image."},
        **STORED_IMAGE_RESPONSES,
        **OVERLOADED_RESPONSES,
    },
)
async def read_file(image_id: ImageId, services: ServicesDep, request: Request, prefetch: Prefetch = False) -> Response:
    """The original file of a recorded image, or of one in the lake's newest snapshot, byte for byte."""
    headers = {"ETag": f'"{image_id}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    async with services.admission.deadline():
        data = await _read_image(services, image_id)
        memory_account(request).reserve(len(data))
    return Response(data, media_type=_content_type(data), headers=headers)


@router.get(
    "/images/{image_id}/preview",
    summary="A small picture of an image",
    response_class=Response,
    responses={
        200: {"content": PNG, "description": "The film in shades of grey, as it is displayed."},
        **STORED_IMAGE_RESPONSES,
        **error_responses(422, **NOT_SCORED_ERRORS, **PARAMETER_ERRORS),
        **OVERLOADED_RESPONSES,
    },
)
async def draw_image_preview(
    image_id: ImageId,
    services: ServicesDep,
    request: Request,
    size: Annotated[int, Query(ge=64, le=2048, description="Of the longer side at most, in pixels.")] = 1024,
    prefetch: Prefetch = False,
) -> Response:
    """A recorded image as an 8-bit PNG, whatever its format."""
    async with services.admission.deadline(), services.admission.slot():
        png = await draw_preview(await decode_stored_image(services, image_id, request), size)
        memory_account(request).reserve(len(png))
        return Response(png, media_type="image/png")


@router.get(
    "/images/{image_id}/map",
    summary="A finding's activation map",
    response_class=Response,
    responses={
        200: {
            "content": PNG,
            "headers": {"X-Model-Version": {"schema": {"type": "integer"}, "description": "Whose map this is."}},
            "description": "The map alone, in shades of grey: 0 nothing, 255 its peak. It covers the whole film.",
        },
        **error_responses(403, **FORBIDDEN_ERRORS, **OVERLAYS_OFF_ERRORS, **URI_ERRORS),
        **error_responses(404, **MISSING_ERRORS),
        **error_responses(422, **NOT_SCORED_ERRORS, **FINDING_ERRORS),
        **OVERLOADED_RESPONSES,
    },
)
async def draw_activation_map(
    image_id: ImageId,
    services: ServicesDep,
    request: Request,
    label: Annotated[str, Query(description="A finding of the model.", examples=["Pneumothorax"])],
    prefetch: Prefetch = False,
) -> Response:
    """Grad-CAM of a finding by the version that serves now, for a page to colour and lay over the film."""
    check_overlays(services.config.serve.modes)
    async with services.admission.deadline(), services.admission.slot():
        grey = await decode_stored_image(services, image_id, request)
        result = await services.model.scorer.score(grey)
        findings = list(result.probabilities)
        if label not in findings:
            raise ApiError(422, "unknown_finding", f"no finding {label[:64]!r}; choose some of {', '.join(findings)}")
        png = await draw_map(result.evidence[findings.index(label)], *grey.shape)
        memory_account(request).reserve(len(png))
        return Response(png, media_type="image/png", headers={"X-Model-Version": str(result.model.version)})


async def decode_stored_image(services: Services, image_id: str, request: Request) -> Grey:
    """Reads and decodes an image. Raises ApiError if that is impossible, or there is no memory for it."""
    data, memory = await _read_image(services, image_id), memory_account(request)
    memory.reserve(len(data))
    return (await decode_image(services, data, memory))[0]


async def _read_image(services: Services, image_id: str) -> bytes:
    """Reads the file of an image. Raises ApiError if that is impossible."""
    row = None
    if SHA256.fullmatch(image_id):
        row = await services.state.read(lambda session: session.get(ImageRow, image_id))
    return await asyncio.to_thread(services.stored_images.read, image_id, row)


def _content_type(data: bytes) -> str:
    """Returns the media type of an image by its first bytes."""
    if data.startswith(b"\x89PNG"):
        return "image/png"
    return "image/jpeg" if data.startswith(b"\xff\xd8") else "application/dicom"
