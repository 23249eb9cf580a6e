"""Watches for verdicts: each change of the reviews of a film makes the next revision of its result."""

import logging
import threading
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.config.gateway import Gateway
from chestai.imaging.errors import Unreadable
from chestai.results.dicom.film_header import read_header
from chestai.results.film import Film
from serve.db.database import Database, serialise_writes
from serve.gateway.db import deliveries
from serve.gateway.db.films import StoredResult, count_reviews, find_newly_reviewed, load_reviews
from serve.gateway.db.models import FilmRow
from serve.gateway.db.revisions import record_revision
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.dispatch.routes import list_deliveries, list_objects
from serve.gateway.fhir.index import index_result
from serve.gateway.intake.folder import Intake
from serve.storage.pseudonyms import Pseudonyms

log = logging.getLogger("chestai.gateway")

EVERY_S = 2.0


@dataclass(frozen=True)
class VerdictWatch:
    """Queues what changed by verdicts."""

    settings: Gateway
    database: Database
    intake: Intake
    files: ResultFiles
    pseudonyms: Pseudonyms

    def run(self, stop: threading.Event) -> None:
        """Looks for new verdicts until `stop` is set."""
        while not stop.wait(EVERY_S):
            try:
                self.queue_revisions()
            except (DBAPIError, PoolTimeout, OSError) as error:
                log.warning("verdicts wait: %s", type(error).__name__)

    def queue_revisions(self) -> int:
        """Queues the next revision of each film with new verdicts. Returns the number of films."""
        with self.database.read_session() as session:
            films = find_newly_reviewed(session)
        for film_id in films:
            try:
                self._revise(film_id)
            except (ValueError, Unreadable) as error:  # one film must not hold up the verdicts on others
                log.error("the verdict on film %s cannot go out: %s", film_id[:12], type(error).__name__)
        return len(films)

    def _revise(self, film_id: str) -> None:
        path = self.intake.find(film_id)
        with self.database.write_session() as session:
            serialise_writes(session, film_id)
            row = session.get_one(FilmRow, film_id)
            before, reviews = row.reviews, load_reviews(session, row)
            row.reviews = count_reviews(session, row)
            if path is None or row.result is None or (not reviews and not before):
                return  # such as a verdict on the prediction of another version
            row.revision += 1
            header = read_header(path.read_bytes())
            result = StoredResult.model_validate(row.result)
            revised = result.attach(Film.from_header(header), reviews, row.revision)
            record_revision(session, film_id, row.revision, reviews)
            index_result(session, film_id, revised, self.pseudonyms)
            kinds = list_objects(self.settings.destinations) & {"sr"}
            made = self.files.make(film_id, kinds, revised, header)
            what = list_deliveries(self.settings.destinations, made, row.revision)
            deliveries.queue(session, film_id, row.study, result.version, row.revision, what)
