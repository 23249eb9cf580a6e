"""The intake: films on a local disk, from when they were received until retention deletes them.

A film that `add` accepted is on disk, whatever happens to the process or the machine. It waits in `new` until it is
scored or kept out, then lies in `kept`, where results are made from its header. A film is known by its SOP Instance UID
alone: its bytes may differ when a PACS sends it again.

Priors, which the archive gave to be compared with, wait in `prior`, behind the new films, and then lie in `kept-prior`.
A prior that is sent as a new film becomes one; a new film never becomes a prior.

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
    prior: bool


def gateway_folder(config: Config) -> Path:
    """Where films and results lie, for the gateway and an endpoint that takes films by STOW-RS."""
    named = config.gateway.folder
    return state_folder(config) / "gateway" if named is None else Path(named).expanduser()


class Intake:
    """The folder. Its methods may be called from any thread and process."""

    def __init__(self, folder: Path) -> None:
        """Creates the folders and deletes unfinished files of dead processes. Raises OSError if that is impossible."""
        self.folder = folder
        self._part, self._new, self._prior = (folder / name for name in ("part", "new", "prior"))
        self._kept = {False: folder / "kept", True: folder / "kept-prior"}  # by whether it is a prior
        for place in (folder, self._part, self._new, self._prior, *self._kept.values()):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_parts()

    def add(self, sop_instance: str, data: bytes, prior: bool = False) -> bool:
        """Stores a film durably.

        Args:
            data: The DICOM file as it came.
            prior: Whether it is there to be compared with.

        Returns:
            Whether it is new; a film that is there already stays as it is, but a prior may become a new film.

        Raises:
            OSError: It could not be stored, such as because the disk is full. Nothing is left of it then.
        """
        film_id = film_id_of(sop_instance)
        if not prior and self._promote(film_id):
            return True
        if self.find(film_id) is not None:
            return False
        waits = self._prior if prior else self._new
        part = self._part / uuid4().hex
        try:
            with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, waits / f"{film_id}.dcm")
            except FileExistsError:
                return False
            sync_folder(waits)
            return True
        finally:
            part.unlink(missing_ok=True)

    def waiting(self) -> list[WaitingFilm]:
        """The films that wait, oldest first, and then the priors."""
        films = []
        for folder in (self._new, self._prior):
            for path in folder.glob("*.dcm"):
                with suppress(FileNotFoundError):  # another process was faster
                    films.append(WaitingFilm(path.stem, path, path.stat().st_mtime, folder == self._prior))
        return sorted(films, key=lambda film: (film.prior, film.received_at))

    def settle(self, film_id: str, prior: bool = False) -> None:
        """Moves a film out of those that wait, once the database knows what became of it. prior: as it waited."""
        place = self._place(film_id, prior)
        self._move((self._prior if prior else self._new) / place.name, place)

    def find(self, film_id: str) -> Path | None:
        """The file of a film; None if it is not there."""
        return next((path for path in self._places(film_id) if path.exists()), None)

    def remove(self, film_id: str) -> None:
        """Deletes a film."""
        for path in self._places(film_id):
            path.unlink(missing_ok=True)

    def _promote(self, film_id: str) -> bool:
        """Lets a prior wait as a new film. Returns whether there was one."""
        new, *_, waiting, kept = self._places(film_id)
        return self._move(waiting, new) or self._move(kept, new)

    def _move(self, path: Path, place: Path) -> bool:
        with suppress(FileNotFoundError):
            place.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(path, place)
            sync_folder(place.parent)
            sync_folder(path.parent)
            return True
        return False

    def _places(self, film_id: str) -> list[Path]:
        """Where a film may be: as a new one and as a prior, waiting and kept."""
        name = f"{film_id}.dcm"
        return [self._new / name, self._place(film_id, False), self._prior / name, self._place(film_id, True)]

    def _place(self, film_id: str, prior: bool) -> Path:
        return self._kept[prior] / film_id[:2] / f"{film_id}.dcm"  # a folder with a million names is slow to list

    def _remove_parts(self) -> None:
        for path in self._part.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - 3600 * PART_HOURS:
                    path.unlink()
