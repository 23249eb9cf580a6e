"""TODO"""

from pyarrow import fs


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem of an absolute local path or a URI, and the path on it.

    What follows an object store's bucket is a key as it is: Arrow would take a space for an error, `%` for a code.
    """
    scheme, there, rest = path.partition("://")
    if not there or scheme == "file":
        filesystem, inner = fs.FileSystem.from_uri(path)
        return filesystem, inner
    bucket, _, key = rest.partition("/")
    filesystem, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}")
    return filesystem, f"{root}/{key}".rstrip("/")


def read_bytes(path: str) -> bytes:
    """The bytes behind an absolute local path or a URI. Raises `OSError`."""
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())
