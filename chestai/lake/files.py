"""Reads files by absolute local path or by URI, and decodes texts."""

import os
import re

from pyarrow import fs


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """Returns the pyarrow filesystem of an absolute local path or a URI, and the path on it.

    A local path, and the key after the bucket of an object store, are taken literally; Arrow itself would refuse a
    space and decode `%`.
    """
    scheme, separator, rest = path.partition("://")
    if path.startswith("/"):
        return fs.LocalFileSystem(), path
    if not separator or scheme == "file":
        filesystem, inner = fs.FileSystem.from_uri(path)
        return filesystem, inner
    bucket, _, key = rest.partition("/")
    filesystem, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}")
    return filesystem, f"{root}/{key}".rstrip("/")


def locate(path: str) -> str:
    """The absolute path, or the URI, of what a user names; `~` is the user's home."""
    return path.rstrip("/") if "://" in path else os.path.abspath(os.path.expanduser(path))


def read_bytes(path: str) -> bytes:
    """Reads the bytes at an absolute local path or a URI. Raises `OSError`."""
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())


def explain_unreadable(path: str, error: Exception) -> str:
    """Returns why a file could not be read, in one line."""
    if isinstance(error, FileNotFoundError) and re.search(r"\\x[0-9a-f]{2}", path):
        return "its name is not UTF-8: rename the file"
    return " ".join(str(error).split())


def decode_text(data: bytes) -> str:
    """Decodes a text file: UTF-8 or UTF-16 (as PowerShell and spreadsheets write), else Windows' Latin letters."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    head = data[:4096]
    if head[1::2].count(0) > len(head) // 4:
        return data.decode("utf-16-le", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
