"""Sends what is queued for one destination, in order within each study, until it is sent or given up."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.clock import now
from chestai.config.gateway import Gateway
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database
from serve.gateway.db import deliveries
from serve.gateway.db.models import DeliveryRow
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused

log = logging.getLogger("chestai.gateway")

IDLE_S = 0.5
AWAY = 3  # failures in a row after which a destination is left alone for a while
MAX_ERROR = 500  # characters

Send = Callable[[DeliveryRow], None]  # raises DeliveryDelayed or DeliveryRefused


@dataclass(frozen=True)
class Dispatcher:
    """The sender of one destination."""

    name: str
    settings: Gateway
    database: Database
    send: Send
    actor: str = "gateway"

    def run(self, stop: threading.Event) -> None:
        """Sends what is due until `stop` is set; pauses while the destination or the database is away."""
        while not stop.is_set():
            try:
                pause = self.send_due(stop)
            except (DBAPIError, PoolTimeout) as error:
                log.warning("deliveries to %s wait for the database: %s", self.name, type(error).__name__)
                pause = self.settings.retry_seconds
            if pause:
                stop.wait(pause)

    def send_due(self, stop: threading.Event) -> float:
        """Sends what is due now. Returns the seconds to pause before the next call."""
        with self.database.read_session() as session:
            due = deliveries.load_due(session, self.name, now())
        failures = 0
        for row in due:
            if stop.is_set():
                return 0.0
            failures = 0 if self._try(row) else failures + 1
            if failures == AWAY:
                return self.settings.retry_seconds
        return 0.0 if due else IDLE_S

    def _try(self, row: DeliveryRow) -> bool:
        """Sends one delivery, and records what happened. Returns whether the destination answered."""
        try:
            self.send(row)
        except DeliveryDelayed as error:
            self._put_off(row, str(error)[:MAX_ERROR])
            return False
        except DeliveryRefused as error:
            self._give_up(row, str(error)[:MAX_ERROR])
            return True
        except Exception as error:  # of a library; its text may name a patient
            log.exception("delivery %s of %s to %s failed", row.delivery_id[:12], row.kind, self.name, exc_info=False)
            self._put_off(row, type(error).__name__)
            return True
        with self.database.write_session() as session:
            deliveries.mark_sent(session, row.delivery_id)
            detail = {"kind": row.kind, "destination": self.name, "revision": row.revision}
            append_event(session, AuditEvent(actor=self.actor, action="film.sent", object=row.film_id, detail=detail))
        return True

    def _put_off(self, row: DeliveryRow, error: str) -> None:
        if now() - row.created_at > timedelta(hours=self.settings.give_up_hours):
            self._give_up(row, error)
            return
        log.warning("delivery of %s to %s waits: %s", row.kind, self.name, error)
        with self.database.write_session() as session:
            deliveries.delay(session, row, error, self.settings.retry_seconds, self.settings.max_retry_seconds)

    def _give_up(self, row: DeliveryRow, error: str) -> None:
        log.error("delivery %s of %s to %s is given up: %s", row.delivery_id[:12], row.kind, self.name, error)
        with self.database.write_session() as session:
            deliveries.mark_dead(session, row.delivery_id, error)
            detail = {"kind": row.kind, "destination": self.name, "error": error}
            append_event(
                session, AuditEvent(actor=self.actor, action="film.not_sent", object=row.film_id, detail=detail)
            )
