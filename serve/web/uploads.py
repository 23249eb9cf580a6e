"""The files that come with a request, never more than is allowed."""

import hashlib
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from serve.problems import Refused

FORM = "multipart/form-data"
IMAGES = (
    "image/png",
    "image/jpeg",
    "application/dicom",
    "application/octet-stream",
)  # types of a body that is an image
MAX_FIELDS = 16  # of a form, beside files
MAX_NAME = 255  # characters of a file name, as file systems have it


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
        Refused: more than `limit` bytes, a body of another type, one that is cut, or a form without one safely named
            file in that field.
    """
    kind = _type(request)
    if kind == FORM:
        async with _form(request, limit, 1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Refused(422, "missing_file", "the form has no file in its field `file`")
            return await _upload(file)
    if kind and kind not in IMAGES:
        raise Refused(415, "unsupported_media_type", f"send a form ({FORM}), or the image itself as {_list(IMAGES)}")
    try:
        return Upload(await _limited(request, limit).body(), None)
    except ClientDisconnect as error:
        raise _incomplete() from error


async def received_all(request: Request, limit: int, most: int) -> list[Upload]:
    """The files in the form's field `files`.

    Args:
        limit: bytes of all together. most: files.

    Raises:
        Refused: no form with such a file, more bytes or more files, or a file name that is not safe.
    """
    if _type(request) != FORM:
        raise Refused(422, "missing_file", "send a form with the images in its field `files`")
    async with _form(request, limit, most) as form:
        files = [one for one in form.getlist("files") if isinstance(one, UploadFile)]
        if not files:
            raise Refused(422, "missing_file", "the form has no file in its field `files`")
        return [await _upload(file) for file in files]


def _type(request: Request) -> str:
    """The media type that the request declares; empty where it declares none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _list(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


@asynccontextmanager
async def _form(request: Request, limit: int, most: int) -> AsyncIterator[FormData]:
    """The form of a request, with `most` files."""
    try:
        form = await _limited(request, limit).form(max_files=most, max_fields=MAX_FIELDS)
    except ClientDisconnect as error:
        raise _incomplete() from error
    except HTTPException as error:  # Starlette's of a form that it cannot read
        if error.detail.startswith("Too many files"):
            detail = f"the form has more than {most} file{'s (serve.max_files)' if most > 1 else ''}"
            raise Refused(413, "too_many_files", detail) from error
        raise Refused(400, "invalid_request", f"the form cannot be read: {error.detail}") from error
    except UnicodeError as error:  # the charset that it declares is one of Python's for other things
        raise Refused(400, "invalid_request", "the form cannot be read: its charset does not fit") from error
    try:
        yield form
    finally:
        await form.close()


async def _upload(file: UploadFile) -> Upload:
    """Its name goes into answers, and from there into what others do with them."""
    name = file.filename or ""
    if len(name) > MAX_NAME or any(one in "/\\" or unicodedata.category(one) in ("Cc", "Cs") for one in name):
        detail = f"a file name has at most {MAX_NAME} characters, and neither a path nor control characters"
        raise Refused(422, "unsafe_file_name", detail)
    return Upload(await file.read(), name)


def _limited(request: Request, limit: int) -> Request:
    """The request, whose body is refused as soon as it is too large: its declared length may be missing or wrong."""
    declared = request.headers.get("content-length", "").lstrip("0")
    if declared.isascii() and declared.isdigit() and (len(declared) > len(str(limit)) or int(declared) > limit):
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


def _incomplete() -> Refused:
    return Refused(400, "incomplete_upload", "the connection ended before the upload did")
