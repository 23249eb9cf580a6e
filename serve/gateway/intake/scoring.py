"""Takes waiting films to the endpoint, and queues what goes out about them.

A film leaves the intake's queue after its outcome, its deliveries and its audit are in the database, in one
transaction. Killed before, the gateway does it again: the endpoint then keeps one prediction for the same file, objects
have the same UIDs, and deliveries the same IDs.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydicom import Dataset
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.config.gateway import Gateway
from chestai.imaging.errors import Unreadable
from chestai.imaging.sandbox import Sandbox
from chestai.results.dicom.film_header import read_header
from chestai.results.film import Film
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database
from serve.gateway.db import deliveries
from serve.gateway.db.films import add_film, make_film_row
from serve.gateway.db.models import UID, FilmRow
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.dispatch.routes import list_deliveries, list_objects
from serve.gateway.fhir.index import index_result
from serve.gateway.intake.endpoint import EndpointClient, EndpointUnavailable, KeptOut, Scored
from serve.gateway.intake.folder import Intake, WaitingFilm
from serve.gateway.intake.turns import Turns
from serve.storage.pseudonyms import Pseudonyms

log = logging.getLogger("chestai.gateway")

ACTOR = "gateway"
THREADS = 4  # films at the endpoint at a time
IDLE_S = 0.5
PASSING = (EndpointUnavailable, DBAPIError, PoolTimeout, OSError)  # errors that time may heal


@dataclass(frozen=True)
class Scoring:
    """The way of films from the intake to the queue of deliveries."""

    settings: Gateway
    intake: Intake
    database: Database
    endpoint: EndpointClient
    files: ResultFiles
    pseudonyms: Pseudonyms
    sandbox: Sandbox

    def run(self, stop: threading.Event) -> None:
        """Scores what waits until `stop` is set; pauses while the endpoint, the database or the disk is away."""
        with ThreadPoolExecutor(THREADS, "scoring") as threads:
            turns = Turns(self.settings.retry_seconds, self.settings.max_retry_seconds)
            while not stop.is_set():
                films = turns.choose(self.intake.waiting(), 4 * THREADS)
                outcomes = [*threads.map(self._try, films)]
                for film, outcome in zip(films, outcomes, strict=True):
                    if outcome != "done":
                        turns.fail(film.film_id, outcome == "fault")
                if "done" not in outcomes:
                    stop.wait(self.settings.retry_seconds if "later" in outcomes else IDLE_S)

    def _try(self, film: WaitingFilm) -> Literal["done", "later", "fault"]:
        try:
            self.process(film)
        except FileNotFoundError:
            return "done"  # by another process
        except PASSING as error:
            reason = str(error) if isinstance(error, EndpointUnavailable) else type(error).__name__
            log.warning("film %s waits: %s", film.film_id[:12], reason)
            return "later"
        except Exception as error:  # one film must not end the scoring of all others; its text may name a patient
            log.error("film %s waits, and the reason is a fault of ours: %s", film.film_id[:12], type(error).__name__)
            return "fault"
        return "done"

    def process(self, film: WaitingFilm) -> None:
        """Scores a film, or keeps it out, and settles it.

        Raises:
            EndpointUnavailable, DBAPIError, OSError: It stays where it is.
        """
        with self.database.read_session() as session:
            row = session.get(FilmRow, film.film_id)
        if row is None or (row.prior and not film.prior):
            self._score(film)
        self.intake.settle(film.film_id, film.prior)

    def _score(self, film: WaitingFilm) -> None:
        data = film.path.read_bytes()
        received_at = datetime.fromtimestamp(film.received_at, UTC)
        try:
            header = read_header(data)
            if any(len(str(header.get(name) or "")) > UID for name in ("SOPInstanceUID", "StudyInstanceUID")):
                raise Unreadable("undecodable", f"a UID has more than {UID} characters")
        except Unreadable as error:
            unknown = Film(sop_class="", sop_instance="", series="", study="")
            self._record(film, unknown, received_at, KeptOut(error.reason, error.detail), [])
            return
        identity, outcome = Film.from_header(header), self.endpoint.score(data, film.prior)
        made = None
        if isinstance(outcome, Scored) and not film.prior:
            made = self._make_files(film.film_id, identity, outcome, header, data)
        what = [] if made is None else list_deliveries(self.settings.destinations, made, 0)
        self._record(film, identity, received_at, outcome, what)

    def _make_files(
        self, film_id: str, identity: Film, outcome: Scored, header: Dataset, data: bytes
    ) -> list[Any] | None:
        """Makes the DICOM objects; None if nothing can go out about a film with such a header."""
        result, kinds = outcome.result.attach(identity), list_objects(self.settings.destinations)
        try:
            return [
                *self.files.make(
                    film_id, kinds, result, header, outcome.evidence, decode=lambda: self.sandbox.decode(data)
                )
            ]
        except (ValueError, Unreadable) as error:
            log.error("film %s is scored, but nothing can go out about it: %s", film_id[:12], error)
            return None

    def _record(
        self,
        film: WaitingFilm,
        identity: Film,
        received_at: datetime,
        outcome: Scored | KeptOut,
        what: list[tuple[str, str]],
    ) -> None:
        if isinstance(outcome, KeptOut):
            facts: dict[str, Any] = {"prior": film.prior, "reason": outcome.reason, "detail": outcome.detail}
            detail = {"kept_out": outcome.reason}
        else:
            result = outcome.result.model_dump(mode="json")
            facts = {"prior": film.prior, "image_id": outcome.image_id, "result": result}
            detail = {"image_id": outcome.image_id, "bucket": outcome.result.bucket}
        film_id, row = film.film_id, make_film_row(film.film_id, identity, self.pseudonyms, received_at, **facts)
        with self.database.write_session() as session:
            if not add_film(session, row):
                return
            if isinstance(outcome, Scored) and not film.prior:
                deliveries.queue(session, film_id, identity.study, outcome.result.version, 0, what)
                index_result(session, film_id, outcome.result.attach(identity), self.pseudonyms)
            append_event(session, AuditEvent(actor=ACTOR, action="film.scored", object=film_id, detail=detail))
        log.info("film %s: %s", film_id[:12], detail)
