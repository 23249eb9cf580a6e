"""The films that come at our request, told from those that somebody sends to be read, and checked.

One request is served at a time. Films of C-MOVE come through the receiver, in threads of its own.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from chestai.results.dicom.film_header import read_header
from chestai.results.film import Film, film_id_of
from serve.db.audit import AuditEvent
from serve.gateway.intake.accepted import FILMS
from serve.gateway.priors.errors import NotAskedFor

Audit = Callable[[AuditEvent], None]


@dataclass
class Retrieval:
    """What was asked for, and what came of it.

    image_id: for which it was asked. is_of_patient: whether a film is of the patient. studies: UIDs. films: IDs of
    those that are here. refused: number of films that are not what was asked for. unsent: of those that the archive
    could not send. problem: why a study is missing.
    """

    image_id: str
    is_of_patient: Callable[[Film], bool]
    studies: frozenset[str]
    audit: Audit
    films: set[str] = field(default_factory=set)
    refused: int = 0
    unsent: int = 0
    problem: str | None = None

    def check(self, film: Film) -> None:
        """Raises NotAskedFor: The film is of another patient or study, or is no radiograph."""
        if not self.is_of_patient(film) or film.study not in self.studies or film.sop_class not in FILMS:
            self.refused += 1
            raise NotAskedFor("it is not of the patient and the studies that were asked for")

    def note(self, instance: str, is_new: bool) -> None:
        """Puts a film that is stored into the audit, and counts it."""
        film_id, detail = film_id_of(instance), {"for": self.image_id, "new": is_new}
        self.audit(AuditEvent(actor="gateway", action="film.fetched", object=film_id, detail=detail))
        self.films.add(film_id)


class Retrievals:
    """Knows the retrieval that is under way. Its methods may be called from any thread."""

    def __init__(self, our_title: str, archive_title: str | None) -> None:
        self._our_title, self._archive_title = our_title, archive_title
        self._lock = threading.Lock()
        self._current: Retrieval | None = None

    @contextmanager
    def opened(self, retrieval: Retrieval) -> Iterator[None]:
        """Expects the films of a retrieval while the block runs."""
        with self._lock:
            self._current = retrieval
        try:
            yield
        finally:
            with self._lock:
                self._current = None

    def find(self, originator: str | None, caller: str, data: bytes) -> Retrieval | None:
        """The retrieval to which a film belongs that came by C-STORE; None if it was sent to be read.

        Args:
            originator: Who asked for it by C-MOVE. Some archives do not say, or name themselves: what they then send of
                the studies that we asked for is ours.
            data: The DICOM file.

        Raises:
            NotAskedFor: We asked for no such film.
            Unreadable: Its header is damaged.
        """
        with self._lock:
            current = self._current
        originator = (originator or "").strip()
        is_vague = caller == self._archive_title and originator in ("", self._archive_title)
        if originator != self._our_title and not (is_vague and current is not None):
            return None
        if current is None:
            raise NotAskedFor("no request is under way")
        film = Film.from_header(read_header(data))
        if is_vague and film.study not in current.studies:
            return None
        current.check(film)
        return current
