"""Checks that a file named by a client lies below `serve.prefixes`, however its name is written."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from chestai.errors import UserError
from serve.problems import ApiError
from serve.storage.names import has_hidden_characters

S3 = "s3://"
MAX_URI_LENGTH = 1024  # characters, as for S3 keys
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
DECODED_CHARACTERS = re.compile(r"[\\%]")  # readers may decode them


def resolve_allowed(uri: str, prefixes: Sequence[str]) -> str:
    """Returns the canonical form of a path or URI that lies in one of the prefixes, or is one.

    The error for a forbidden URI does not depend on what exists there, so it reveals nothing.

    Args:
        uri: An absolute path, whose symbolic links and `..` are resolved, or `s3://bucket/key`. Anything else is
            rejected, and so are `%` and backslashes (which readers may decode), invisible characters, and in a key
            `..`, `.` and empty parts.
        prefixes: Folders and S3 prefixes of the config. They are compared part by part: `/data/a` does not include
            `/data/ab`.

    Returns:
        The path without links, or the URI without a trailing slash.

    Raises:
        ApiError: 403.
    """
    parts = _split(uri)
    if parts is None or not any(_contains(_split(prefix), parts) for prefix in prefixes):
        raise ApiError(403, "prefix_not_allowed", "it is not below one of the places that serve.prefixes names")
    root, *names = parts
    return root + "/".join(names)


def check_prefixes(prefixes: Sequence[str]) -> None:
    """
    Raises:
        UserError: A prefix of the config is neither an absolute path nor a valid S3 URI.
    """
    for prefix in prefixes:
        if _split(prefix) is None:
            raise UserError(
                f"serve.prefixes: {prefix!r} is neither an absolute path nor of the form s3://bucket/prefix"
            )


def _contains(prefix: list[str] | None, parts: list[str]) -> bool:
    return prefix is not None and parts[: len(prefix)] == prefix


def _split(uri: str) -> list[str] | None:
    """Returns the root (`/` or `s3://`) and the parts of the name; None if it is malformed."""
    if len(uri) > MAX_URI_LENGTH or DECODED_CHARACTERS.search(uri) or has_hidden_characters(uri):
        return None
    if uri.startswith(S3):
        bucket, *key = uri.removeprefix(S3).removesuffix("/").split("/")
        is_valid = BUCKET.fullmatch(bucket) and ".." not in bucket and not {"", ".", ".."} & set(key)
        return [S3, bucket, *key] if is_valid else None
    if not os.path.isabs(uri) or uri.startswith("//"):
        return None
    try:
        path = Path(uri).resolve()
    except (OSError, RuntimeError, ValueError):  # the name is too long, or the links form a circle
        return None
    return ["/", *path.parts[1:]]
