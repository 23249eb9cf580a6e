"""What is known of images of the lake."""

import asyncio
from typing import Annotated

import pyarrow.compute as pc
from fastapi import APIRouter, Query
from starlette.responses import Response

from chestai.lake import IMAGES, Lake, read_bytes
from serve.audit import Event
from serve.problems import Refused, documented
from serve.web.guard import Who
from serve.web.infer import PNG
from serve.web.reading import drawn, explained, read
from serve.web.services import Used

router = APIRouter(tags=["images of the lake"])


@router.get(
    "/images/{image_id}/heatmap",
    response_class=Response,
    responses={
        200: {"content": PNG, "description": "The overlay."},
        **documented(404, "`unknown_image`, or `image_file_missing`: known, but its file is gone"),
        **documented(422, "`unknown_finding`, or as for `/infer` where the file is damaged"),
        **documented(503, "`overloaded`; when to try again is in `Retry-After`"),
    },
)
async def heatmap(
    image_id: str, services: Used, who: Who, label: Annotated[str, Query(description="A finding of the model.")]
) -> Response:
    """Grad-CAM overlay of an image of the lake's newest snapshot."""
    async with services.in_time():
        grey = await read(await asyncio.to_thread(stored, services.lake, image_id))
        scored = await services.scorer.score(grey)
        findings = explained(scored, [label])
        if not findings:
            raise Refused(404, "nothing_to_show", "no finding that drives the triage score reaches its operating point")
        await services.note(Event(actor=who.name, action="heatmap", object=image_id[:200]))
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
        detail = f"no image {image_id} in snapshot {builds[-1].snapshot_id}"
        raise Refused(404, "unknown_image", detail)
    path = rows["path"][0].as_py()
    if path is None:
        raise Refused(404, "image_file_missing", f"snapshot {builds[-1].snapshot_id} has no file of image {image_id}")
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        raise Refused(404, "image_file_missing", f"the file of image {image_id} is not there any more") from error
