"""Takes readers' requests to the archive, and ends them when the films can be looked at.

A request stays in the database until it is done, so one that was under way when the gateway was killed is taken up
again. What came before is here then, and is neither stored nor scored twice.
"""

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.config.gateway import Gateway
from chestai.imaging.errors import Unreadable
from chestai.results.dicom.film_header import read_film
from serve.db.database import Database
from serve.db.outbox import OutboxFull
from serve.gateway.db.models import FilmRow
from serve.gateway.db.prior_requests import DONE, FAILED, finish_request, load_waiting
from serve.gateway.intake.folder import Intake
from serve.gateway.priors.archive import Archive, Wanted
from serve.gateway.priors.errors import ArchiveAway, ArchiveRefuses
from serve.gateway.priors.retrieval import Audit, Retrieval, Retrievals

log = logging.getLogger("chestai.gateway")

TRIES = 3  # of an archive that is away; then its reader hears of it, and may ask again
SCORING_S = 600.0  # for the films of a request; then it is over, and they come later
IDLE_S = 0.5
PASSING = (DBAPIError, PoolTimeout, OutboxFull, OSError)  # errors that time may heal


@dataclass
class _Progress:
    """How far a request is. due, fetched: seconds of the monotonic clock. retrieval: what came, once it did."""

    tries: int = 0
    due: float = 0.0
    fetched: float = 0.0
    retrieval: Retrieval | None = None


@dataclass(frozen=True)
class PriorRequests:
    """The way from a request to priors."""

    settings: Gateway
    studies: int
    archive: Archive
    database: Database
    intake: Intake
    retrievals: Retrievals
    audit: Audit
    _progress: dict[str, _Progress] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Serves requests until `stop` is set; pauses while the database or the disk is away."""
        while not stop.wait(IDLE_S):
            try:
                self.serve(stop)
            except PASSING as error:
                log.warning("requests for priors wait: %s", type(error).__name__)
                stop.wait(self.settings.retry_seconds)

    def serve(self, stop: threading.Event) -> None:
        """Does what can be done now for each request that waits."""
        with self.database.read_session() as session:
            waiting = load_waiting(session)
        for image_id in [*self._progress]:
            if image_id not in waiting:
                del self._progress[image_id]
        for image_id in waiting:
            if stop.is_set():
                return
            progress = self._progress.setdefault(image_id, _Progress())
            if progress.retrieval is None:
                self._fetch(image_id, progress)
            if progress.retrieval is not None:
                self._end_if_scored(image_id, progress.retrieval, time.monotonic() - progress.fetched > SCORING_S)

    def _fetch(self, image_id: str, progress: _Progress) -> None:
        if time.monotonic() < progress.due:
            return
        progress.tries += 1
        try:
            progress.retrieval = self._retrieve(self._read_wanted(image_id))
            progress.fetched = time.monotonic()
        except ArchiveAway as error:
            log.warning("priors of image %s wait: %s", image_id[:12], error)
            progress.due = time.monotonic() + self.settings.retry_seconds * 2 ** (progress.tries - 1)
            if progress.tries >= TRIES:
                self._finish(image_id, FAILED, 0, str(error))
        except ArchiveRefuses as error:
            self._finish(image_id, FAILED, 0, str(error))
        except PASSING:
            raise
        except Exception as error:  # of a library; its text may name a patient
            log.error("priors of image %s cannot be fetched: %s", image_id[:12], type(error).__name__)
            self._finish(image_id, FAILED, 0, f"a fault of ours ({type(error).__name__})")

    def _read_wanted(self, image_id: str) -> Wanted:
        """Whose films are wanted. Raises ArchiveRefuses: The film does not say, or is gone."""
        with self.database.read_session() as session:
            row = session.scalars(select(FilmRow).where(FilmRow.image_id == image_id).limit(1)).first()
        path = None if row is None else self.intake.find(row.film_id)
        if row is None or path is None:
            raise ArchiveRefuses("the film is gone (state.retention_days)")
        try:
            film = read_film(path)
        except (FileNotFoundError, Unreadable) as error:
            raise ArchiveRefuses("the film cannot be read") from error
        if not film.patient_id:
            raise ArchiveRefuses("the film has no patient ID")
        day = row.received_at if film.studied_at is None else film.studied_at
        return Wanted(image_id, film.study, film.patient_id, film.issuer, day.date())

    def _retrieve(self, wanted: Wanted) -> Retrieval:
        """Fetches the films. What one study lacks does not keep the others away.

        Raises:
            ArchiveAway, ArchiveRefuses: Nothing came.
        """
        studies = self.archive.find(wanted, self.studies)
        uids = frozenset(study.uid for study in studies)
        retrieval = Retrieval(wanted.image_id, wanted.is_of_patient, uids, self.audit)
        with self.retrievals.opened(retrieval):
            for study in studies:
                try:
                    self.archive.fetch(study, retrieval)
                except ArchiveRefuses as error:
                    retrieval.problem = str(error)
        if retrieval.problem is not None and not retrieval.films:
            raise ArchiveRefuses(retrieval.problem)
        return retrieval

    def _end_if_scored(self, image_id: str, retrieval: Retrieval, is_late: bool) -> None:
        if not is_late and not retrieval.films.isdisjoint(film.film_id for film in self.intake.waiting()):
            return
        with self.database.read_session() as session:
            query = select(FilmRow.image_id, FilmRow.reason).where(FilmRow.film_id.in_(sorted(retrieval.films)))
            found = session.execute(query).all()
        shown = sum(row.image_id is not None for row in found)
        reasons = Counter(str(row.reason) for row in found if row.image_id is None)
        self._finish(image_id, DONE, shown, _describe(retrieval, reasons, len(retrieval.films) - len(found)))

    def _finish(self, image_id: str, state: str, films: int, detail: str | None) -> None:
        with self.database.write_session() as session:
            finish_request(session, image_id, state, films, detail)
        self._progress.pop(image_id, None)
        log.info("priors of image %s: %s, %d films%s", image_id[:12], state, films, f", {detail}" if detail else "")


def _describe(retrieval: Retrieval, reasons: Counter[str], unscored: int) -> str | None:
    """What there is to say besides the number of films; None if it is nothing."""
    unsent = max(0, retrieval.unsent - retrieval.refused)  # what we refuse, the archive cannot send
    parts = [f"{count} not shown: {reason.replace('_', ' ')}" for reason, count in sorted(reasons.items())]
    counts = {"not scored yet": unscored, "refused: of another patient or study": retrieval.refused}
    parts += [f"{count} {what}" for what, count in {**counts, "could not be sent": unsent}.items() if count]
    return "; ".join([*parts, *filter(None, [retrieval.problem])]) or None
