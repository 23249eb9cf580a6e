"""Heatmaps of images that the endpoint can read again: from the lake, the image store, or their URI."""

import asyncio
import hashlib
import re
from typing import Annotated

import pyarrow.compute as pc
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from serve.api.display_modes import OVERLAYS_OFF_ERRORS, check_overlays
from serve.api.openapi import FINDING_ERRORS, FORBIDDEN_ERRORS, NOT_SCORED_ERRORS, OVERLOADED_RESPONSES, PNG
from serve.api.request_limits import memory_account
from serve.api.score_image import decode_image, draw_overlay, select_findings
from serve.api.services import Services, ServicesDep
from serve.db.models import ImageRow
from serve.problems import ApiError, error_responses
from serve.storage.uri_reader import read_uri

router = APIRouter(tags=["stored images"])


@router.get(
    "/images/{image_id}/heatmap",
    summary="Explain a stored image",
    response_class=Response,
    responses={
        200: {"content": PNG, "description": "The overlay."},
        **error_responses(
            403, **FORBIDDEN_ERRORS, **OVERLAYS_OFF_ERRORS, prefix_not_allowed="its URI is not allowed any more"
        ),
        **error_responses(
            404,
            unknown_image="neither stored nor in the newest snapshot",
            image_file_missing="known, but its file is missing or has changed",
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
        data, memory = await _read_image(services, image_id), memory_account(request)
        memory.reserve(len(data))
        grey = await decode_image(services, data, memory)
        result = await services.model.scorer.score(grey)
        findings = select_findings(result, [label])
        if not findings:
            raise ApiError(404, "nothing_to_show", "no finding of the triage score reaches its operating point")
        return Response(await draw_overlay(grey, result, findings[0], memory), media_type="image/png")


async def _read_image(services: Services, image_id: str) -> bytes:
    """Reads the file of an image. Raises ApiError if that is impossible."""
    if re.fullmatch("[0-9a-f]{64}", image_id):
        row = await services.state.read(lambda session: session.get(ImageRow, image_id))
        if row is not None and row.uri is not None:
            return await asyncio.to_thread(_read_received_image, services, image_id, row.uri)
    return await asyncio.to_thread(_read_lake_image, Lake(services.config.lake), image_id)


def _read_received_image(services: Services, image_id: str, uri: str) -> bytes:
    """Reads an image of a former request, from the image store or its URI.

    Raises:
        ApiError: 403, the URI is not allowed any more; 404, the file is missing or has changed.
    """
    limits, images = services.config.serve, services.state.images
    try:
        if uri == images.uri(image_id):
            data = images.read(image_id)
        else:
            data = read_uri(uri, limits.prefixes, limits.max_upload_mb * 2**20)[1]
    except (OSError, ApiError) as error:
        if isinstance(error, ApiError) and error.problem.status == 403:
            raise
        raise _file_missing(image_id) from error
    if hashlib.sha256(data).hexdigest() != image_id:
        raise ApiError(404, "image_file_missing", f"the file of image {image_id} has changed")
    return data


def _read_lake_image(lake: Lake, image_id: str) -> bytes:
    """Reads an image of the newest snapshot.

    Raises:
        ApiError: 404, the snapshot has no such image, or its file is missing.
    """
    snapshots = lake.list_snapshots()
    if not snapshots:
        raise ApiError(404, "unknown_image", "the lake has no images yet")
    snapshot = snapshots[-1]
    is_image = pc.field("image_id") == image_id
    rows = lake.read(IMAGES, snapshot.versions[IMAGES], columns=["path"], where=is_image)
    if rows.num_rows == 0:
        raise ApiError(404, "unknown_image", f"no image {image_id[:64]} in snapshot {snapshot.snapshot_id}")
    path = rows["path"][0].as_py()
    if path is None:
        raise _file_missing(image_id)
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        raise _file_missing(image_id) from error


def _file_missing(image_id: str) -> ApiError:
    return ApiError(404, "image_file_missing", f"the file of image {image_id[:64]} is missing")
