"""A folder of input files, local or in an object store: list it, read it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

from chestai.errors import UserError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg"))

# An image file: path relative to the folder, file name, size in bytes, last change in nanoseconds since 1970.
LISTING = pa.schema({"path": pa.string(), "name": pa.string(), "size": pa.int64(), "changed_ns": pa.int64()})


@dataclass(frozen=True)
class Folder:
    """A folder by its absolute path or URI, which every node of the cluster must see."""

    uri: str

    @staticmethod
    def at(root: str, hint: str = "") -> "Folder":
        """The folder at a path or URI.

        Raises:
            UserError: there is no such folder; the message ends with the hint.
        """
        uri = root.rstrip("/") if "://" in root else os.path.abspath(os.path.expanduser(root))
        folder = Folder(uri)
        try:
            filesystem, path = folder.filesystem()
            kind = filesystem.get_file_info(path).type
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"source.root={root} cannot be opened: {error}{hint}") from error
        if kind != fs.FileType.Directory:
            raise UserError(f"source.root={root} is no folder{hint}")
        return folder

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The pyarrow filesystem and this folder's path on it."""
        filesystem, path = fs.FileSystem.from_uri(self.uri)
        return filesystem, path

    def location(self, path: str) -> str:
        """The absolute path or URI of a file below the folder."""
        return f"{self.uri}/{path}"

    def files(self) -> list[str]:
        """Names of the files directly in the folder, sorted."""
        filesystem, root = self.filesystem()
        infos = filesystem.get_file_info(fs.FileSelector(root))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.File)

    def read(self, path: str) -> bytes:
        """The content of a file below the folder. Raises `OSError`."""
        filesystem, root = self.filesystem()
        with filesystem.open_input_stream(f"{root}/{path}") as stream:
            return bytes(stream.read())

    def images(self) -> pa.Table:
        """Every image file anywhere below the folder, hidden ones apart, as `LISTING` in order of path."""
        filesystem, root = self.filesystem()
        rows = [
            (info.path[len(root) :].lstrip("/"), info.base_name, info.size, info.mtime_ns)
            for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True))
            if info.type == fs.FileType.File and _is_image(info.base_name)
        ]
        columns = zip(*sorted(rows), strict=True) if rows else [()] * len(LISTING)
        return pa.table([list(column) for column in columns], schema=LISTING)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def listing_digest(listing: pa.Table) -> str:
    """A hash of a `LISTING`: another one when a file came, went, or was written again."""
    rows = zip(*(listing[name].to_pylist() for name in ("path", "size", "changed_ns")), strict=True)
    text = "\n".join(f"{path}\t{size}\t{changed}" for path, size, changed in rows)
    return hashlib.sha256(text.encode()).hexdigest()
