"""Checks that the state of an endpoint outlives its container: the outbox, and the database if it is a file."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import make_url

from chestai.config.schema import Config
from chestai.errors import UserError
from serve.db.database import database_url
from serve.db.store import state_folder

CONTAINER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))  # of Docker and of Podman
KUBERNETES = "KUBERNETES_SERVICE_HOST"  # a variable of every container there
MOUNTS = Path("/proc/self/mountinfo")
TEMPORARY = re.compile(
    r"(fuse\.)?(fuse-)?overlay(fs)?|aufs|tmpfs|ramfs"
)  # types of a container's own layer, and memory
EMPTY_DIR = "/kubernetes.io~empty-dir/"  # in the path of a volume that Kubernetes deletes with the pod


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo. root: the folder of the file system that is mounted."""

    root: str
    point: Path
    kind: str

    @property
    def is_temporary(self) -> bool:
        """Whether it ends with its container."""
        return TEMPORARY.fullmatch(self.kind) is not None or EMPTY_DIR in self.root


def check_durable(config: Config) -> None:
    """Raises UserError if this process is in a container that would take the state with it."""
    if config.state.ephemeral or not is_container():
        return
    mounts = MOUNTS.read_text()
    for folder in _state_folders(config):
        mount = find_mount(folder, mounts)
        if mount.is_temporary:
            raise UserError(
                f"{folder} keeps records that exist nowhere else, and is lost with this container ({mount.kind} at "
                f"{mount.point}): mount a volume there, or set state.ephemeral=true if they may be lost"
            )


def is_container() -> bool:
    """Returns whether this process is in a container of Kubernetes, Docker or Podman."""
    return KUBERNETES in os.environ or any(file.exists() for file in CONTAINER_FILES)


def find_mount(path: Path, mounts: str) -> Mount:
    """Finds the mount that holds a path, which need not exist.

    Args:
        mounts: The text of /proc/self/mountinfo, `proc(5)`.
    """
    found = Mount("/", Path("/"), "unknown")
    for line in mounts.splitlines():
        fields, _, kind = line.partition(" - ")
        root, point = (_unescape(text) for text in fields.split()[3:5])
        covers = path.is_relative_to(point) and len(Path(point).parts) >= len(found.point.parts)
        found = Mount(root, Path(point), kind.split()[0]) if covers else found  # the last one at a point is on top
    return found


def _state_folders(config: Config) -> list[Path]:
    url = make_url(database_url(config))
    database = [Path(url.database).parent] if url.get_backend_name() == "sqlite" and url.database else []
    return [folder.absolute().resolve() for folder in [state_folder(config), *database]]


def _unescape(text: str) -> str:
    """Replaces the octal codes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
