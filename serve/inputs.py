"""The bytes that a request is about: uploaded with it, or stored in the lake."""

from collections.abc import Awaitable, Callable

import pyarrow.compute as pc
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from chestai.lake import IMAGES, Lake, read_bytes
from serve.answers import Problem


class Refused(Exception):
    """A request that is answered by a problem."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem.of(status, code, detail)


async def received(request: Request, limit: int) -> tuple[bytes, str | None]:
    """The uploaded file and its name where one was given.

    Raises:
        Refused: more than `limit` bytes, or a form without a file in the field `file`.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    upload = Request(request.scope, _capped(request.receive, limit))
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await upload.body(), None
    async with upload.form(max_files=1) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Refused(422, "missing_file", "the form has no file in its field `file`")
        return await file.read(), file.filename


def _capped(receive: Callable[[], Awaitable[Message]], limit: int) -> Callable[[], Awaitable[Message]]:
    """`receive` that refuses a body as soon as it is too large: its declared length may be missing."""
    seen = 0

    async def capped() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return capped


def _too_large(limit: int) -> Refused:
    return Refused(413, "upload_too_large", f"an upload may have {limit // 2**20} MiB (serve.max_upload_mb)")


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
