"""What is known of images of the lake."""

import asyncio
from typing import Annotated

import pyarrow.compute as pc
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from chestai.lake import IMAGES, Lake, read_bytes
from serve.problems import Refused, documented
from serve.web.documents import NOT_SCORED, OVERLOADED, PNG, UNKNOWN
from serve.web.reading import drawn, explained, read
from serve.web.services import Used

router = APIRouter(tags=["images of the lake"])


@router.get(
    "/images/{image_id}/heatmap",
    summary="Explain an image of the lake",
    response_class=Response,
    responses={
        200: {"content": PNG, "description": "The overlay."},
        **documented(
            404,
            unknown_image="the newest snapshot has none of that name",
            image_file_missing="known, but its file is gone",
            nothing_to_show="`top` was asked for, and nothing is reached",
            not_found="the name holds a slash, or is none",
        ),
        **documented(422, **NOT_SCORED, **UNKNOWN),
        **OVERLOADED,
    },
)
async def heatmap(
    image_id: Annotated[str, Path(description="As in gold/images.", examples=["00000088_000"])],
    services: Used,
    label: Annotated[str, Query(description="A finding of the model, or `top`.", examples=["Pneumothorax"])],
) -> Response:
    """Grad-CAM overlay of an image of the lake's newest snapshot."""
    async with services.in_time():
        grey = await read(await asyncio.to_thread(stored, services.lake, image_id))
        scored = await services.scorer.score(grey)
        findings = explained(scored, [label])
        if not findings:
            raise Refused(404, "nothing_to_show", "no finding that drives the triage score reaches its operating point")
        return Response(await drawn(grey, scored, findings[0]), media_type="image/png")


def stored(lake: Lake, image_id: str) -> bytes:
    """The file of an image of the newest snapshot.

    Raises:
        Refused: the snapshot has no such image, or its file is not there any more.
    """
    builds = lake.history()
    if not builds:
        raise Refused(404, "unknown_image", "the lake holds no images yet")
    wanted = pc.field("image_id") == image_id
    rows = lake.read(IMAGES, builds[-1].versions[IMAGES], columns=["path"], where=wanted)
    if rows.num_rows == 0:
        detail = f"no image {image_id[:64]} in snapshot {builds[-1].snapshot_id}"
        raise Refused(404, "unknown_image", detail)
    path = rows["path"][0].as_py()
    if path is None:
        raise Refused(
            404, "image_file_missing", f"snapshot {builds[-1].snapshot_id} has no file of image {image_id[:64]}"
        )
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        raise Refused(404, "image_file_missing", f"the file of image {image_id[:64]} is not there any more") from error
