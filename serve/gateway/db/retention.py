"""Deletes films, results, deliveries and requests that are older than `state.retention_days`; the audit stays."""

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from chestai.clock import now
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database
from serve.gateway.db.models import DeliveryRow, FilmRow, ResourceRow, RevisionRow
from serve.gateway.db.prior_requests import delete_requests
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.intake.folder import Intake

log = logging.getLogger("chestai.gateway")

HOUR_S = 3600.0
BATCH = 200


@dataclass(frozen=True)
class FilmRetention:
    """The purge of the gateway's folder and tables."""

    database: Database
    intake: Intake
    files: ResultFiles
    days: float

    def run(self, stop: threading.Event) -> None:
        """Purges now and every hour until `stop` is set."""
        while True:
            try:
                if count := self.purge(now() - timedelta(days=self.days)):
                    log.info("retention deleted %d films", count)
            except Exception as error:
                log.error("retention failed and will be retried: %s", type(error).__name__)
            if stop.wait(HOUR_S):
                return

    def purge(self, before: datetime) -> int:
        """Deletes the films that were done before, files first: no file is left without a row. Returns their number."""
        total = 0
        while True:
            with self.database.write_session(deadline_s=None) as session:
                old = select(FilmRow.film_id).where(FilmRow.done_at < before).order_by(FilmRow.done_at).limit(BATCH)
                films = list(session.scalars(old))
                for film_id in films:
                    self.intake.remove(film_id)
                    self.files.remove(film_id)
                for table in (DeliveryRow, ResourceRow, RevisionRow, FilmRow):
                    session.execute(delete(table).where(table.film_id.in_(films)))
                delete_requests(session, before)
                if films:
                    detail = {"before": before.isoformat(), "films": len(films)}
                    append_event(session, AuditEvent(actor="system", action="purge", detail=detail))
            total += len(films)
            if len(films) < BATCH:
                return total
