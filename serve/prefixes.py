"""Which URIs a request may name: those below a configured prefix, a local folder or a part of an S3 bucket.

Nothing is ever fetched by another scheme, so that no request makes this machine ask another one (SSRF).
"""

import os
from collections.abc import Sequence

from serve.problems import Refused

S3 = "s3://"


def allowed(uri: str, prefixes: Sequence[str]) -> str:
    """The canonical form of a URI: an absolute path without links and `..`, or `s3://bucket/key` as it is.

    What it names need not be there, and the refusal is the same whether it is or not.

    Args:
        uri: an absolute local path, or `s3://bucket/key`.
        prefixes: `serve.prefixes`.

    Raises:
        Refused: 403, it lies below none of them.
    """
    canonical = _s3(uri) if uri.startswith(S3) else _local(uri)
    roots = (_s3(one.rstrip("/")) if one.startswith(S3) else _local(os.path.expanduser(one)) for one in prefixes)
    if canonical is None or not any(root is not None and _below(canonical, root) for root in roots):
        raise Refused(403, "prefix_not_allowed", "the URI lies below none of serve.prefixes")
    return canonical


def _below(canonical: str, root: str) -> bool:
    return canonical.startswith(root.rstrip("/") + "/")


def _s3(uri: str) -> str | None:
    """Keys are no paths: a store takes `..` as it is, but what reads it may not, so that no such key is taken."""
    parts = uri.removeprefix(S3).split("/")
    return uri if uri.isprintable() and not {"", ".", ".."} & {*parts} else None


def _local(path: str) -> str | None:
    if not path.startswith("/"):
        return None
    try:
        resolved = os.path.realpath(path)
    except (OSError, ValueError):  # such as a NUL in it
        return None
    return resolved if resolved.isprintable() else None
