"""Which places of files a client may name: those below `serve.prefixes`, whatever the name is made to look like."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from chestai.errors import UserError
from serve.problems import ApiError

S3 = "s3://"
MOST = 1024  # characters of a place, as of S3's keys
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
STRANGE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\%]")  # what some reader might take for another


def resolve_allowed(uri: str, prefixes: Sequence[str]) -> str:
    """The place that a client named, in the one way to write it, if it lies in one of the prefixes, or is one.

    Nothing is told of what is there, and the answer to what is not allowed does not depend on it.

    Args:
        uri: an absolute path, whose symbolic links and `..` are followed, or `s3://bucket/key`. Any other is refused,
            and so are `%` and backslashes, which readers may decode, control characters, and in a key `..`, `.` and
            empty parts.
        prefixes: folders and S3 prefixes of the config; they hold what lies below them, part by part: `/data/a` does
            not hold `/data/ab`.

    Returns:
        The path without links, or the URI without a slash at its end.

    Raises:
        Refused: 403.
    """
    place = _parts(uri)
    if place is None or not any(_holds(_parts(one), place) for one in prefixes):
        raise ApiError(403, "prefix_not_allowed", "it is not below one of the places that serve.prefixes names")
    scheme, *parts = place
    return scheme + "/".join(parts)


def check_prefixes(prefixes: Sequence[str]) -> None:
    """Raises UserError where one of the prefixes of the config is not written as it should be."""
    for one in prefixes:
        if _parts(one) is None:
            raise UserError(f"serve.prefixes: {one!r} is neither an absolute path nor of the form s3://bucket/prefix")


def _holds(prefix: list[str] | None, place: list[str]) -> bool:
    return prefix is not None and place[: len(prefix)] == prefix


def _parts(uri: str) -> list[str] | None:
    """The kind of place and the parts of its name; None where it is not written as it should be."""
    if len(uri) > MOST or STRANGE.search(uri):
        return None
    if uri.startswith(S3):
        bucket, *key = uri.removeprefix(S3).removesuffix("/").split("/")
        good = BUCKET.fullmatch(bucket) and ".." not in bucket and not {"", ".", ".."} & set(key)
        return [S3, bucket, *key] if good else None
    if not os.path.isabs(uri) or uri.startswith("//"):
        return None
    try:
        found = Path(uri).resolve()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, links in a circle
        return None
    return ["/", *found.parts[1:]]
