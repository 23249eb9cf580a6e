"""Reads files that requests name by URI, without leaving the allowed prefixes."""

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from chestai.lake.files import resolve
from serve.problems import ApiError
from serve.storage.allowed_prefixes import S3, resolve_allowed

FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_uri(uri: str, prefixes: Sequence[str], limit: int) -> tuple[str, bytes]:
    """Returns the canonical URI and the bytes of a file. Blocks.

    Args:
        limit: Maximum size in bytes; a larger file is not read into memory.

    Raises:
        ApiError: 403, the URI lies below no prefix; 404, there is no readable file; 413, it is too large.
    """
    canonical = resolve_allowed(uri, prefixes)
    try:
        data = _read_object(canonical, limit) if canonical.startswith(S3) else _read_file(canonical, limit)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ApiError(404, "unknown_uri", "no file that can be read is at this URI") from error
    _check_size(len(data), limit)  # it may have grown meanwhile
    return canonical, data


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ApiError(413, "upload_too_large", f"a file may have {limit // 2**20} MiB (serve.max_upload_mb)")


def _read_file(path: str, limit: int) -> bytes:
    """Reads at most `limit` + 1 bytes."""
    with _open_without_links(path) as file:
        _check_size(os.fstat(file.fileno()).st_size, limit)
        return file.read(limit + 1)


def _open_without_links(path: str) -> BinaryIO:
    """Opens a regular file, folder by folder, so that it follows no link, even one that was just put there.

    Raises:
        OSError: There is no such file, or it is a link, a folder, a pipe or a device.
    """
    *folders, name = path.strip("/").split("/")
    current = os.open("/", FOLDER_FLAGS)
    try:
        for folder in folders:
            inner = os.open(folder, FOLDER_FLAGS, dir_fd=current)
            os.close(current)
            current = inner
        if not stat.S_ISREG(os.stat(name, dir_fd=current, follow_symlinks=False).st_mode):
            raise OSError(f"{path} is no plain file")  # checked first, since opening it could wake a device
        file = os.open(name, FILE_FLAGS, dir_fd=current)
    finally:
        os.close(current)
    if not stat.S_ISREG(os.fstat(file).st_mode):  # it was replaced in between
        os.close(file)
        raise OSError(f"{path} is no plain file")
    return open(file, "rb")


def _read_object(uri: str, limit: int) -> bytes:
    """Reads at most `limit` + 1 bytes from an object store."""
    filesystem, path = resolve(uri)
    if filesystem.get_file_info(path).type != fs.FileType.File:
        raise OSError(f"{uri} is no object")
    with filesystem.open_input_file(path) as file:
        _check_size(file.size(), limit)
        return bytes(file.read(limit + 1))
