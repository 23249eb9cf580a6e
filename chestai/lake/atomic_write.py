"""Atomic writes to a local disk or an object store: a reader sees the old file or the complete new one."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chestai.lake.files import resolve


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[Path]:
    """Yields a local file to write. It replaces `path` at the end of the block, unless the block raises.

    Args:
        path: A local path, whose folder is created if needed, or a URI such as `s3://bucket/key`.

    Raises:
        OSError: The file cannot be written.
        ValueError: The scheme of the URI is unknown.
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
