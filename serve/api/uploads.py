"""The files that come with a request, never more than is allowed."""

import hashlib
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from serve.api.body_limits import counted
from serve.problems import ApiError

FORM = "multipart/form-data"
IMAGES = (
    "image/png",
    "image/jpeg",
    "application/dicom",
    "application/octet-stream",
)  # types of a body that is an image
JSON = "application/json"
MAX_JSON = 4096  # bytes of a body that names a URI
MAX_FIELDS = 16  # of a form, beside files
MAX_NAME = 255  # characters of a file name, as file systems have it


@dataclass(frozen=True)
class Upload:
    """A file: its bytes, its name where one was given, and where it lies where it did not come with the request."""

    data: bytes
    name: str | None
    uri: str | None = None

    @cached_property
    def image_id(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


class ImageReference(BaseModel):
    """An image that lies below one of `serve.prefixes`: an absolute path, or `s3://bucket/key`."""

    model_config = ConfigDict(extra="forbid")

    uri: Annotated[str, Field(min_length=1, max_length=2048)]


async def named(request: Request) -> str | None:
    """The URI that the body names instead of being an image; None: it is of another type.

    Raises:
        Refused: more than `MAX_JSON` bytes, or not as `Named`.
    """
    if _type(request) != JSON:
        return None
    try:
        return ImageReference.model_validate_json(await _limited(request, MAX_JSON).body()).uri
    except ValidationError as error:
        raise ApiError(422, "invalid_request", 'the body is not JSON such as {"uri": "/folder/file.png"}') from error
    except ClientDisconnect as error:
        raise _incomplete() from error


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
                raise ApiError(422, "missing_file", "the form has no file in its field `file`")
            return await _upload(file)
    if kind and kind not in IMAGES:
        detail = f"send a form ({FORM}), a URI as {JSON}, or the image itself as {_list(IMAGES)}"
        raise ApiError(415, "unsupported_media_type", detail)
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
        raise ApiError(422, "missing_file", "send a form with the images in its field `files`")
    async with _form(request, limit, most) as form:
        files = [one for one in form.getlist("files") if isinstance(one, UploadFile)]
        if not files:
            raise ApiError(422, "missing_file", "the form has no file in its field `files`")
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
            raise ApiError(413, "too_many_files", detail) from error
        raise ApiError(400, "invalid_request", f"the form cannot be read: {error.detail}") from error
    except UnicodeError as error:  # the charset that it declares is one of Python's for other things
        raise ApiError(400, "invalid_request", "the form cannot be read: its charset does not fit") from error
    try:
        yield form
    finally:
        await form.close()


async def _upload(file: UploadFile) -> Upload:
    return Upload(await file.read(), safe(file.filename or ""))


def safe(name: str) -> str:
    """A file's name, which goes into answers, and from there into what others do with them. Raises `Refused`."""
    if len(name) > MAX_NAME or any(one in "/\\" or unicodedata.category(one) in ("Cc", "Cs") for one in name):
        detail = f"a file name has at most {MAX_NAME} characters, and neither a path nor control characters"
        raise ApiError(422, "unsafe_file_name", detail)
    return name


def _limited(request: Request, limit: int) -> Request:
    """The request, whose body is refused as soon as it is too large: its declared length may be missing or wrong."""
    declared = request.headers.get("content-length", "").lstrip("0")
    if declared.isascii() and declared.isdigit() and (len(declared) > len(str(limit)) or int(declared) > limit):
        raise _too_large(limit)
    return Request(request.scope, counted(request.receive, limit, _too_large(limit)))


def _too_large(limit: int) -> ApiError:
    most = f"{limit // 2**20} MiB (serve.max_upload_mb)" if limit >= 2**20 else f"{limit // 2**10} KiB as {JSON}"
    return ApiError(413, "upload_too_large", f"a body may have {most}")


def _incomplete() -> ApiError:
    return ApiError(400, "incomplete_upload", "the connection ended before the upload did")
