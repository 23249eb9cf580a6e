"""Reads the files of a request, within the size limits."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from serve.api.request_limits import limit_receive, memory_account
from serve.inference.memory_budget import MemoryAccount
from serve.problems import ApiError
from serve.schemas.inference import ImageReference
from serve.storage.names import has_hidden_characters

FORM_TYPE = "multipart/form-data"
JSON_TYPE = "application/json"
IMAGE_TYPES = ("image/png", "image/jpeg", "application/dicom", "application/octet-stream")
MAX_JSON_BYTES = 4096  # of a body that names a URI
MAX_FIELDS_BYTES = 2**16  # of JSON in the place of a form
MAX_FORM_FIELDS = 32  # besides files
MAX_NAME_LENGTH = 255  # characters of a file name, as in file systems


@dataclass(frozen=True)
class Upload:
    """A file of a request. memory: the account of the request.

    name: None if the request has none. uri: where the file is, if the request named it by URI.
    """

    data: bytes
    name: str | None
    memory: MemoryAccount
    uri: str | None = None

    @cached_property
    def image_id(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


async def read_uri_reference(request: Request) -> str | None:
    """Returns the URI in a JSON body; None for a body of another type.

    Raises:
        ApiError: The body is larger than `MAX_JSON_BYTES`, or no valid `ImageReference`.
    """
    if _media_type(request) != JSON_TYPE:
        return None
    try:
        return ImageReference.model_validate_json(await _limit_body(request, MAX_JSON_BYTES).body()).uri
    except ValidationError as error:
        raise ApiError(422, "invalid_request", 'the body is not JSON such as {"uri": "/folder/file.png"}') from error
    except ClientDisconnect as error:
        raise _incomplete_upload() from error


async def read_upload(request: Request, max_bytes: int) -> Upload:
    """Reads the file in the form's field `file`, or the body itself.

    Raises:
        ApiError: The body is larger than `max_bytes`, of another type, or cut off; or the form does not have exactly
            one file, with a safe name, in that field.
    """
    media_type = _media_type(request)
    if media_type == FORM_TYPE:
        async with _open_form(request, max_bytes, 1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise ApiError(422, "missing_file", "the form has no file in its field `file`")
            return await _to_upload(request, file)
    if media_type and media_type not in IMAGE_TYPES:
        image_types = f"{', '.join(IMAGE_TYPES[:-1])} or {IMAGE_TYPES[-1]}"
        detail = f"send a form ({FORM_TYPE}), a URI as {JSON_TYPE}, or the image itself as {image_types}"
        raise ApiError(415, "unsupported_media_type", detail)
    return Upload(await read_body(request, max_bytes), None, memory_account(request))


async def read_fields(request: Request, max_bytes: int) -> tuple[bytes | Mapping[str, Sequence[str]], Upload | None]:
    """Reads a request of fields and, if there is one, an image: a form, whose field `file` it is, JSON, or the image.

    Returns:
        The fields: JSON as it came, or the values of each field of a form by its name; and the image.

    Raises:
        ApiError: As `read_upload`, or the JSON is larger than `MAX_FIELDS_BYTES`.
    """
    media_type = _media_type(request)
    if media_type == JSON_TYPE:
        return await read_body(request, min(max_bytes, MAX_FIELDS_BYTES)), None
    if media_type != FORM_TYPE:
        return {}, await read_upload(request, max_bytes)
    async with _open_form(request, max_bytes, 1) as form:
        file = form.get("file")
        texts = {name: [one for one in form.getlist(name) if isinstance(one, str)] for name in form if name != "file"}
        return texts, await _to_upload(request, file) if isinstance(file, UploadFile) else None


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Reads a body of any type. Raises ApiError: It is larger than `max_bytes`, or cut off."""
    try:
        return await _limit_body(request, max_bytes).body()
    except ClientDisconnect as error:
        raise _incomplete_upload() from error


async def read_uploads(request: Request, max_bytes: int, max_files: int) -> list[Upload]:
    """Reads the files in the form's field `files`.

    Args:
        max_bytes: Of the whole body.

    Raises:
        ApiError: There is no form with such a file, it has more bytes or files, or an unsafe file name.
    """
    if _media_type(request) != FORM_TYPE:
        raise ApiError(422, "missing_file", "send a form with the images in its field `files`")
    async with _open_form(request, max_bytes, max_files) as form:
        files = [value for value in form.getlist("files") if isinstance(value, UploadFile)]
        if not files:
            raise ApiError(422, "missing_file", "the form has no file in its field `files`")
        return [await _to_upload(request, file) for file in files]


def check_file_name(name: str) -> str:
    """Returns a file name if it is safe, since it goes into responses and from there into other systems.

    Raises:
        ApiError: 422, it has a path, invisible characters, or too many characters.
    """
    if len(name) > MAX_NAME_LENGTH or "/" in name or "\\" in name or has_hidden_characters(name):
        detail = f"a file name has at most {MAX_NAME_LENGTH} characters, no path and no invisible characters"
        raise ApiError(422, "unsafe_file_name", detail)
    return name


def _media_type(request: Request) -> str:
    """Returns the declared media type; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def _open_form(request: Request, max_bytes: int, max_files: int) -> AsyncIterator[FormData]:
    try:
        form = await _limit_body(request, max_bytes).form(max_files=max_files, max_fields=MAX_FORM_FIELDS)
    except ClientDisconnect as error:
        raise _incomplete_upload() from error
    except ApiError:
        raise
    except HTTPException as error:  # Starlette cannot read the form
        if error.detail.startswith("Too many files"):
            detail = f"the form has more than {max_files} file{'s (serve.max_files)' if max_files > 1 else ''}"
            raise ApiError(413, "too_many_files", detail) from error
        raise ApiError(400, "invalid_request", f"the form cannot be read: {error.detail}") from error
    except UnicodeError as error:  # the declared charset is a Python codec that does not fit
        raise ApiError(400, "invalid_request", "the form cannot be read: its charset does not fit") from error
    try:
        yield form
    finally:
        await form.close()


async def _to_upload(request: Request, file: UploadFile) -> Upload:
    return Upload(await file.read(), check_file_name(file.filename or ""), memory_account(request))


def _limit_body(request: Request, max_bytes: int) -> Request:
    """Returns a request whose body is rejected once it is too large; its declared length may be missing or wrong."""
    declared = request.headers.get("content-length", "").lstrip("0")
    # Compare the number of digits first: `int` raises ValueError for thousands of them.
    is_number = declared.isascii() and declared.isdigit()
    if is_number and (len(declared) > len(str(max_bytes)) or int(declared) > max_bytes):
        raise _upload_too_large(max_bytes)
    return Request(request.scope, limit_receive(request.receive, max_bytes, _upload_too_large(max_bytes)))


def _upload_too_large(max_bytes: int) -> ApiError:
    if max_bytes >= 2**20:
        return ApiError(413, "upload_too_large", f"a body may have {max_bytes // 2**20} MiB (serve.max_upload_mb)")
    return ApiError(413, "upload_too_large", f"a body may have {max_bytes // 2**10} KiB as {JSON_TYPE}")


def _incomplete_upload() -> ApiError:
    return ApiError(400, "incomplete_upload", "the connection ended before the upload did")
