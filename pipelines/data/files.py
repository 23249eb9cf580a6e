"""List and read a folder of input files, local or in an object store."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
        """Return the names of the files directly in the folder, sorted, without those that are not UTF-8."""
        filesystem, root = self.filesystem()
        if isinstance(filesystem, fs.LocalFileSystem):
            return sorted(entry.name for entry in os.scandir(root) if entry.is_file() and _is_utf8(entry.name))
        infos = filesystem.get_file_info(fs.FileSelector(root))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.File)

    def read(self, path: str) -> bytes:
        """Read a file at a `location`. Raises `OSError`."""
        return read_bytes(self.location(path))

    def lies_in(self, prefixes: Sequence[str]) -> bool:
        """Return whether this folder, if it is local, lies in one of the absolute paths, its links resolved."""
        return not isinstance(self.filesystem()[0], fs.LocalFileSystem) or _leads_into(self.uri, _resolve(prefixes))

    def list_images(
        self, is_image: Callable[[str], bool] = has_image_suffix, prefixes: Sequence[str] = ("/",)
    ) -> pa.Table:
        """Return all image files at any depth except hidden ones, as `LISTING` in order of path.

        Links are followed, and each folder is listed once. A name that is not UTF-8
        has `\\x` escapes, so that its file is found missing when it is read, and stops nothing else.

        Args:
            is_image: Whether the file of a name is an image. The name becomes its key.
            prefixes: Absolute paths; a link of a local folder that leads into none of them is left out.

        Raises:
            UserError: A folder cannot be listed.
        """
        filesystem, root = self.filesystem()
        if isinstance(filesystem, fs.LocalFileSystem):
            found = _list_local(Path(root), _resolve(prefixes))
        else:
            infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
            files = (info for info in infos if info.type == fs.FileType.File)
            found = ((info.path[len(root) :].lstrip("/"), info.size, info.mtime_ns) for info in files)
        names = ((path, path.rpartition("/")[2], size, changed_ns) for path, size, changed_ns in found)
        rows = sorted(row for row in names if is_image(row[1]) and not row[1].startswith("."))
        columns = zip(*rows, strict=True) if rows else [()] * len(LISTING)
        return pa.table([list(column) for column in columns], schema=LISTING)


def _list_local(root: Path, prefixes: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Yield path below a local folder, size and time of change of each file; see `InputFolder.list_images`."""
    folders, links, seen = deque([""]), deque[str](), set[tuple[int, int]]()
    while folders or links:
        name = folders.popleft() if folders else links.popleft()  # links last: a folder keeps its own name
        try:
            state = os.stat(root / name)
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(root / name), key=lambda entry: entry.name)
            for entry in entries:
                path = f"{name}/{entry.name}" if name else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_symlink() and not _leads_into(entry.path, prefixes):
                    continue
                elif entry.is_dir():
                    links.append(path)
                elif entry.is_file():
                    state = entry.stat()
                    yield os.fsencode(path).decode(errors="backslashreplace"), state.st_size, state.st_mtime_ns
        except OSError as error:
            raise UserError(f"{root / name} cannot be listed: {error.strerror}") from error


def _resolve(prefixes: Sequence[str]) -> list[Path]:
    return [Path(prefix).resolve() for prefix in prefixes]


def _leads_into(path: str, prefixes: Sequence[Path]) -> bool:
    """Return whether a path, its links resolved, is that of something below one of the prefixes."""
    try:
        target = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):  # to nothing, or in a circle
        return False
    return any(target.is_relative_to(prefix) for prefix in prefixes)


def _is_utf8(name: str) -> bool:
    """Return whether a name that the system gave is text: other bytes come as half of a surrogate pair."""
    return not any("\udc80" <= char <= "\udcff" for char in name)


def hash_listing(listing: pa.Table) -> str:
    """Hash a `LISTING`: the hash changes when a file is added, removed or rewritten."""
    rows = zip(*(listing[name].to_pylist() for name in ("path", "size", "changed_ns")), strict=True)
    text = "\n".join(f"{path}\t{size}\t{changed}" for path, size, changed in rows)
    return hashlib.sha256(text.encode()).hexdigest()
