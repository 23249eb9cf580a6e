"""Reads files by absolute local path or by URI."""

from pyarrow import fs


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """Returns the pyarrow filesystem of an absolute local path or a URI, and the path on it.

    The key after the bucket of an object store is taken literally; Arrow itself would refuse a space and decode `%`.
    """
    scheme, separator, rest = path.partition("://")
    if not separator or scheme == "file":
        filesystem, inner = fs.FileSystem.from_uri(path)
        return filesystem, inner
    bucket, _, key = rest.partition("/")
    filesystem, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}")
    return filesystem, f"{root}/{key}".rstrip("/")


def read_bytes(path: str) -> bytes:
    """Reads the bytes at an absolute local path or a URI. Raises `OSError`."""
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())
