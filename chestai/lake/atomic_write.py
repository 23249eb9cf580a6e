"""Files that are written whole, locally or in an object store: who reads one sees what was there before, or all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chestai.lake.files import resolve


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[Path]:
    """A local file to write, which takes the place of `path` at the end of the block; if that raises, nothing changes.

    Args:
        path: local, whose folder is made at need, or a URI such as ``s3://bucket/key``.

    Raises:
        OSError: it cannot be written. ValueError: there is no such kind of URI.
    """
    if "://" in path:
        filesystem, inner = resolve(path)
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "part")
            yield part
            with part.open("rb") as written, filesystem.open_output_stream(inner) as stream:
                shutil.copyfileobj(written, stream, 2**20)
        return
    target = Path(path).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
