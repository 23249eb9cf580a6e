"""The files that come with a request, never more than is allowed."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from serve.problems import Refused


@dataclass(frozen=True)
class Upload:
    """A file: its bytes, and its name where one was given."""

    data: bytes
    name: str | None

    @cached_property
    def image_id(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


async def received(request: Request, limit: int) -> Upload:
    """The file in the form's field `file`, or the body itself.

    Raises:
        Refused: more than `limit` bytes, or a form without a file in that field.
    """
    upload = _limited(request, limit)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return Upload(await upload.body(), None)
    async with upload.form(max_files=1, max_fields=16) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Refused(422, "missing_file", "the form has no file in its field `file`")
        return Upload(await file.read(), file.filename)


async def received_all(request: Request, limit: int, most: int) -> list[Upload]:
    """The files in the form's field `files`.

    Args:
        limit: bytes of all together. most: files.

    Raises:
        Refused: no form with such a file, more bytes or more files.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(422, "missing_file", "send a form with the images in its field `files`")
    async with _limited(request, limit).form(max_files=most + 1, max_fields=16) as form:
        files = [one for one in form.getlist("files") if isinstance(one, UploadFile)]
        if not files:
            raise Refused(422, "missing_file", "the form has no file in its field `files`")
        if len(files) > most:
            raise Refused(413, "too_many_files", f"a batch may have {most} files (serve.max_files)")
        return [Upload(await file.read(), file.filename) for file in files]


def _limited(request: Request, limit: int) -> Request:
    """The request, whose body is refused as soon as it is too large: its declared length may be missing or wrong."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    return Request(request.scope, _capped(request.receive, limit))


def _capped(receive: Callable[[], Awaitable[Message]], limit: int) -> Callable[[], Awaitable[Message]]:
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
