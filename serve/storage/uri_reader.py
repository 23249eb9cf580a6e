"""Files that requests name by URI, read without a way out of the prefixes that are allowed."""

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from chestai.lake.files import resolve
from serve.problems import ApiError
from serve.storage.allowed_prefixes import S3, resolve_allowed

FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def fetch(uri: str, prefixes: Sequence[str], limit: int) -> tuple[str, bytes]:
    """The canonical URI of a file, and its bytes. Blocks.

    Args:
        limit: bytes; more are neither read nor held.

    Raises:
        Refused: 403, the URI lies below no prefix; 404, there is no file that can be read; 413, it is too large.
    """
    canonical = resolve_allowed(uri, prefixes)
    try:
        data = _object(canonical, limit) if canonical.startswith(S3) else _file(canonical, limit)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ApiError(404, "unknown_uri", "no file that can be read is at this URI") from error
    _check(len(data), limit)  # it may have grown meanwhile
    return canonical, data


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise ApiError(413, "upload_too_large", f"a file may have {limit // 2**20} MiB (serve.max_upload_mb)")


def _file(path: str, limit: int) -> bytes:
    """At most a byte more than the limit. Raises OSError, and `Refused` where it is too large from the start."""
    with _opened(path) as file:
        _check(os.fstat(file.fileno()).st_size, limit)
        return file.read(limit + 1)


def _opened(path: str) -> BinaryIO:
    """A plain file, by a path without links, folder by folder: whoever puts a link into it meanwhile is not followed.

    Raises:
        OSError: there is no such file, or it is a link, a folder, a pipe or a device.
    """
    *folders, name = path.strip("/").split("/")
    here = os.open("/", FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, FOLDER, dir_fd=here)
            os.close(here)
            here = inner
        if not stat.S_ISREG(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
            raise OSError(f"{path} is no plain file")  # not even opened: that can wake a device
        file = os.open(name, FILE, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(file).st_mode):  # it was exchanged
        os.close(file)
        raise OSError(f"{path} is no plain file")
    return open(file, "rb")


def _object(uri: str, limit: int) -> bytes:
    """As `_file`."""
    filesystem, path = resolve(uri)
    if filesystem.get_file_info(path).type != fs.FileType.File:
        raise OSError(f"{uri} is no object")
    with filesystem.open_input_file(path) as file:
        _check(file.size(), limit)
        return bytes(file.read(limit + 1))
