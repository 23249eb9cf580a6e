"""A cache of files that many processes fill and read at once: a file is complete or absent."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

Parts = dict[str, bytes]


def cached(path: Path, names: Sequence[str], make: Callable[[], Parts]) -> Parts:
    """Reads the named parts of a file; if it is absent or damaged, makes and writes them.

    Processes that miss the file at the same time all make it, and the last one's stays. Parts have checksums (CRC-32).

    Raises:
        OSError: The file cannot be written.
    """
    found = _read(path, names)
    if found is not None:
        return found
    parts = make()
    _write(path, parts)
    return parts


def read_parts(file: Path | BinaryIO, names: Sequence[str]) -> Parts:
    """Reads the named parts of a file. Raises an exception of some kind if it is not there or damaged."""
    with zipfile.ZipFile(file) as parts:
        return {name: parts.read(name) for name in names}  # by name, for damage can hide one


def _read(path: Path, names: Sequence[str]) -> Parts | None:
    try:
        return read_parts(path, names)
    except Exception:  # not there, or damaged, wherever that is: `zipfile` has no common exception for it
        return None


def _write(path: Path, parts: Parts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as file:
            for part, content in parts.items():
                file.writestr(part, content)
        os.chmod(name, 0o644)  # mkstemp's are for one user alone
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
