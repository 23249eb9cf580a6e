"""The intake: films on a local disk, from when they were received until retention deletes them.

A film that `add` accepted is on disk, whatever happens to the process or the machine. It waits in `new` until it is
scored or kept out, then lies in `kept`, where results are made from its header. A film is known by its SOP Instance UID
alone: its bytes may differ when a PACS sends it again.

Several processes may share an intake, such as the gateway and an endpoint that receives films by STOW-RS.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from chestai.config.schema import Config
from chestai.results.film import film_id_of
from serve.db.spool import sync_folder
from serve.db.store import state_folder

PART_HOURS = 1  # after which an unfinished file belongs to a process that died


class WaitingFilm(NamedTuple):
    """A film that waits. received_at: seconds since the epoch."""

    film_id: str
    path: Path
    received_at: float


def gateway_folder(config: Config) -> Path:
    """Where films and results lie, for the gateway and an endpoint that takes films by STOW-RS."""
    named = config.gateway.folder
    return state_folder(config) / "gateway" if named is None else Path(named).expanduser()


class Intake:
    """The folder. Its methods may be called from any thread and process."""

    def __init__(self, folder: Path) -> None:
        """Creates the folders and deletes unfinished files of dead processes. Raises OSError if that is impossible."""
        self.folder = folder
        self._part, self._new, self._kept = (folder / name for name in ("part", "new", "kept"))
        for place in (folder, self._part, self._new, self._kept):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_parts()

    def add(self, sop_instance: str, data: bytes) -> bool:
        """Stores a film durably.

        Args:
            data: The DICOM file as it came.

        Returns:
            Whether it is new; a film that is there already stays as it is.

        Raises:
            OSError: It could not be stored, such as because the disk is full. Nothing is left of it then.
        """
        film_id = film_id_of(sop_instance)
        if self.find(film_id) is not None:
            return False
        part = self._part / uuid4().hex
        try:
            with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, self._new / f"{film_id}.dcm")
            except FileExistsError:
                return False
            sync_folder(self._new)
            return True
        finally:
            part.unlink(missing_ok=True)

    def waiting(self) -> list[WaitingFilm]:
        """The films that wait, oldest first."""
        films = []
        for path in self._new.glob("*.dcm"):
            with suppress(FileNotFoundError):  # another process was faster
                films.append(WaitingFilm(path.stem, path, path.stat().st_mtime))
        return sorted(films, key=lambda film: film.received_at)

    def settle(self, film_id: str) -> None:
        """Moves a film out of those that wait, once the database knows what became of it."""
        with suppress(FileNotFoundError):
            place = self._place(film_id)
            os.replace(self._new / f"{film_id}.dcm", place)
            sync_folder(place.parent)
            sync_folder(self._new)

    def find(self, film_id: str) -> Path | None:
        """The file of a film; None if it is not there."""
        places = (self._new / f"{film_id}.dcm", self._place(film_id, create=False))
        return next((path for path in places if path.exists()), None)

    def remove(self, film_id: str) -> None:
        """Deletes a film."""
        for path in (self._new / f"{film_id}.dcm", self._place(film_id, create=False)):
            path.unlink(missing_ok=True)

    def _place(self, film_id: str, create: bool = True) -> Path:
        folder = self._kept / film_id[:2]  # a folder with a million names is slow to list
        if create:
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{film_id}.dcm"

    def _remove_parts(self) -> None:
        for path in self._part.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - 3600 * PART_HOURS:
                    path.unlink()
