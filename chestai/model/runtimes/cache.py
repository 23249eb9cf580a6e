"""A cache of files that many processes fill and read at once. A file is either complete or absent."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

Parts = dict[str, bytes]


def read_or_make(path: Path, names: Sequence[str], make: Callable[[], Parts]) -> Parts:
    """Reads the named parts of a file. If the file is absent or damaged, makes the parts and writes them.

    If several processes miss the file at once, each makes it and the last one written stays. Parts have checksums
    (CRC-32).

    Raises:
        OSError: The file cannot be written.
    """
    parts = _read(path, names)
    if parts is not None:
        return parts
    parts = make()
    _write(path, parts)
    return parts


def _read(path: Path, names: Sequence[str]) -> Parts | None:
    try:
        with zipfile.ZipFile(path) as file:
            return {name: file.read(name) for name in names}  # by name, because damage can hide a part
    except Exception:  # absent or damaged: `zipfile` has no common exception for damage
        return None


def _write(path: Path, parts: Parts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as file:
            for part, content in parts.items():
                file.writestr(part, content)
        os.chmod(name, 0o644)  # mkstemp's files are readable by their owner only
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
