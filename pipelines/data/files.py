"""A folder of input files, local or in an object store: list it, read it."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

from chestai.errors import UserError
from chestai.lake.files import read_bytes, resolve

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))

# An image file: path relative to the folder; key, by which a label row names it (null: only its content tells); size
# in bytes; last change in nanoseconds since 1970.
LISTING = pa.schema({"path": pa.string(), "key": pa.string(), "size": pa.int64(), "changed_ns": pa.int64()})


def is_image(name: str) -> bool:
    """Whether a file is a PNG or JPEG by its name."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True)
class InputFolder:
    """A folder by its absolute path or URI, which every node of the cluster must see."""

    uri: str

    @staticmethod
    def at(root: str, hint: str = "", key: str = "source.root") -> "InputFolder":
        """The folder at a path or URI, which the user gave as `key`.

        Raises:
            UserError: there is no such folder; the message ends with the hint.
        """
        uri = root.rstrip("/") if "://" in root else os.path.abspath(os.path.expanduser(root))
        folder = InputFolder(uri)
        try:
            filesystem, path = folder.filesystem()
            kind = filesystem.get_file_info(path).type
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{key}={root} cannot be opened: {error}{hint}") from error
        if kind != fs.FileType.Directory:
            raise UserError(f"{key}={root} is no folder{hint}")
        return folder

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow filesystem and this folder's path on it."""
        return resolve(self.uri)

    def location(self, path: str) -> str:
        """The absolute path or URI of a file below the folder; of one elsewhere, the path itself."""
        return path if "://" in path or os.path.isabs(path) else f"{self.uri}/{path}"

    def files(self) -> list[str]:
        """Names of the files directly in the folder, sorted."""
        filesystem, root = self.filesystem()
        infos = filesystem.get_file_info(fs.FileSelector(root))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.File)

    def read(self, path: str) -> bytes:
        """The content of a file at a `location`. Raises `OSError`."""
        return read_bytes(self.location(path))

    def images(self, is_image: Callable[[str], bool] = is_image) -> pa.Table:
        """Every image file anywhere below the folder, hidden ones apart, as `LISTING` in order of path.

        Args:
            is_image: whether a file is one, by its name, which is its key.
        """
        filesystem, root = self.filesystem()
        rows = [
            (info.path[len(root) :].lstrip("/"), info.base_name, info.size, info.mtime_ns)
            for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True))
            if info.type == fs.FileType.File and is_image(info.base_name) and not info.base_name.startswith(".")
        ]
        columns = zip(*sorted(rows), strict=True) if rows else [()] * len(LISTING)
        return pa.table([list(column) for column in columns], schema=LISTING)


def listing_digest(listing: pa.Table) -> str:
    """A hash of a `LISTING`: another one when a file came, went, or was written again."""
    rows = zip(*(listing[name].to_pylist() for name in ("path", "size", "changed_ns")), strict=True)
    text = "\n".join(f"{path}\t{size}\t{changed}" for path, size, changed in rows)
    return hashlib.sha256(text.encode()).hexdigest()
