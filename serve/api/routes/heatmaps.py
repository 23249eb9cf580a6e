"""Heatmaps of images whose files are there: of the lake, kept, or named by URI."""

import asyncio
import hashlib
import re
from typing import Annotated

import pyarrow.compute as pc
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from serve.api.display_modes import OVERLAYS_OFF, check_overlays
from serve.api.openapi import FORBIDDEN, NOT_SCORED, OVERLOADED, PNG, UNKNOWN
from serve.api.score_image import decode_image, draw_overlay, findings_to_explain
from serve.api.services import Services, ServicesDep
from serve.db.models import ImageRow
from serve.problems import ApiError, documented
from serve.storage.uri_reader import read_uri

router = APIRouter(tags=["images that are there"])


@router.get(
    "/images/{image_id}/heatmap",
    summary="Explain an image that is there",
    response_class=Response,
    responses={
        200: {"content": PNG, "description": "The overlay."},
        **documented(
            403, **FORBIDDEN, **OVERLAYS_OFF, prefix_not_allowed="it was named by a URI that is not allowed any more"
        ),
        **documented(
            404,
            unknown_image="neither is it kept, nor in the newest snapshot",
            image_file_missing="known, but its file is gone or changed",
            nothing_to_show="`top` was asked for, and nothing is reached",
            not_found="the name holds a slash, or is none",
        ),
        **documented(422, **NOT_SCORED, **UNKNOWN),
        **OVERLOADED,
    },
)
async def heatmap(
    image_id: Annotated[str, Path(description="Of gold/images, or of an answer.", examples=["00000088_000"])],
    services: ServicesDep,
    label: Annotated[str, Query(description="A finding of the model, or `top`.", examples=["Pneumothorax"])],
) -> Response:
    """Grad-CAM overlay of an image of the lake's newest snapshot, or of one that was kept or named by a URI."""
    check_overlays(services.config.serve.modes)
    async with services.in_time():
        grey = await decode_image(await _bytes(services, image_id))
        scored = await services.scorer.score(grey)
        findings = findings_to_explain(scored, [label])
        if not findings:
            raise ApiError(
                404, "nothing_to_show", "no finding that drives the triage score reaches its operating point"
            )
        return Response(await draw_overlay(grey, scored, findings[0]), media_type="image/png")


async def _bytes(services: Services, image_id: str) -> bytes:
    """The file of an image. Raises `Refused` as `answered` and `stored`, and where the database is away."""
    if re.fullmatch("[0-9a-f]{64}", image_id):
        row = await services.look(lambda session: session.get(ImageRow, image_id))
        if row is not None and row.uri is not None:
            return await asyncio.to_thread(answered, services, image_id, row.uri)
    return await asyncio.to_thread(stored, services.lake, image_id)


def answered(services: Services, image_id: str, uri: str) -> bytes:
    """The file of an image that was answered, from where it was kept or read.

    Raises:
        Refused: 403, it may not be read any more; 404, it is gone, or holds something else.
    """
    limits = services.config.serve
    try:
        if uri == services.kept.uri(image_id):
            data = services.kept.read(image_id)
        else:
            data = read_uri(uri, limits.prefixes, limits.max_upload_mb * 2**20)[1]
    except (OSError, ApiError) as error:
        if isinstance(error, ApiError) and error.problem.status == 403:
            raise
        raise ApiError(404, "image_file_missing", f"the file of image {image_id} is not there any more") from error
    if hashlib.sha256(data).hexdigest() != image_id:
        raise ApiError(404, "image_file_missing", f"the file of image {image_id} was changed")
    return data


def stored(lake: Lake, image_id: str) -> bytes:
    """The file of an image of the newest snapshot.

    Raises:
        Refused: the snapshot has no such image, or its file is not there any more.
    """
    builds = lake.history()
    if not builds:
        raise ApiError(404, "unknown_image", "the lake holds no images yet")
    wanted = pc.field("image_id") == image_id
    rows = lake.read(IMAGES, builds[-1].versions[IMAGES], columns=["path"], where=wanted)
    if rows.num_rows == 0:
        detail = f"no image {image_id[:64]} in snapshot {builds[-1].snapshot_id}"
        raise ApiError(404, "unknown_image", detail)
    path = rows["path"][0].as_py()
    if path is None:
        raise ApiError(
            404, "image_file_missing", f"snapshot {builds[-1].snapshot_id} has no file of image {image_id[:64]}"
        )
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        raise ApiError(404, "image_file_missing", f"the file of image {image_id[:64]} is not there any more") from error
