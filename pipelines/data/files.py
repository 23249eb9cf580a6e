"""List and read a folder of input files, local or in an object store."""

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

# An image file. path: relative to the folder. key: by which label rows name it; null if only its content tells.
# size: in bytes. changed_ns: its last change, in nanoseconds since 1970.
LISTING = pa.schema({"path": pa.string(), "key": pa.string(), "size": pa.int64(), "changed_ns": pa.int64()})


def has_image_suffix(name: str) -> bool:
    """Whether the name is that of a PNG or JPEG file."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True)
class InputFolder:
    """A folder by its absolute path or URI. Every node of the cluster must see it."""

    uri: str

    @staticmethod
    def open(root: str, hint: str = "", key: str = "source.root") -> "InputFolder":
        """Open the folder at a path or URI.

        Args:
            key: The config key that named the folder, for the error.

        Raises:
            UserError: There is no such folder; the message ends with the hint.
        """
        uri = root.rstrip("/") if "://" in root else os.path.abspath(os.path.expanduser(root))
        folder = InputFolder(uri)
        try:
            filesystem, path = folder.filesystem()
            kind = filesystem.get_file_info(path).type
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{key}={root} cannot be opened: {error}{hint}") from error
        if kind != fs.FileType.Directory:
            raise UserError(f"{key}={root} is not a folder{hint}")
        return folder

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """Return the pyarrow filesystem and the path of this folder on it."""
        return resolve(self.uri)

    def location(self, path: str) -> str:
        """Return the absolute path or URI of a file below the folder; absolute paths and URIs as they are."""
        return path if "://" in path or os.path.isabs(path) else f"{self.uri}/{path}"

    def list_files(self) -> list[str]:
        """Return the names of the files directly in the folder, sorted."""
        filesystem, root = self.filesystem()
        infos = filesystem.get_file_info(fs.FileSelector(root))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.File)

    def read(self, path: str) -> bytes:
        """Read a file at a `location`. Raises `OSError`."""
        return read_bytes(self.location(path))

    def list_images(self, is_image: Callable[[str], bool] = has_image_suffix) -> pa.Table:
        """Return all image files at any depth except hidden ones, as `LISTING` in order of path.

        Args:
            is_image: Whether the file of a name is an image. The name becomes its key.
        """
        filesystem, root = self.filesystem()
        rows = [
            (info.path[len(root) :].lstrip("/"), info.base_name, info.size, info.mtime_ns)
            for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True))
            if info.type == fs.FileType.File and is_image(info.base_name) and not info.base_name.startswith(".")
        ]
        columns = zip(*sorted(rows), strict=True) if rows else [()] * len(LISTING)
        return pa.table([list(column) for column in columns], schema=LISTING)


def hash_listing(listing: pa.Table) -> str:
    """Hash a `LISTING`: the hash changes when a file is added, removed or rewritten."""
    rows = zip(*(listing[name].to_pylist() for name in ("path", "size", "changed_ns")), strict=True)
    text = "\n".join(f"{path}\t{size}\t{changed}" for path, size, changed in rows)
    return hashlib.sha256(text.encode()).hexdigest()
