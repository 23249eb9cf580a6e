"""The outgoing queue: what goes to which destination, in order within each study, until it is sent or given up."""

import hashlib
import time
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.gateway.db.models import DeliveryRow

WAITING, SENT, COMMITTED, DEAD = "waiting", "sent", "committed", "dead"
BATCH = 200


def delivery_id_of(film_id: str, version: int, kind: str, revision: int, destination: str) -> str:
    """The ID of a delivery: the same thing to the same destination is queued once."""
    text = "\0".join((film_id, str(version), kind, str(revision), destination))
    return hashlib.sha256(text.encode()).hexdigest()


def queue(
    session: Session, film_id: str, study: str, version: int, revision: int, what: Iterable[tuple[str, str]]
) -> None:
    """Queues deliveries of a film's result. what: destinations and kinds, in the order of sending."""
    at, first = now(), time.time_ns()
    for position, (destination, kind) in enumerate(what):
        delivery_id = delivery_id_of(film_id, version, kind, revision, destination)
        if session.get(DeliveryRow, delivery_id) is None:
            session.add(
                DeliveryRow(
                    delivery_id=delivery_id,
                    number=first + position,
                    film_id=film_id,
                    study=study,
                    destination=destination,
                    kind=kind,
                    revision=revision,
                    state=WAITING,
                    attempts=0,
                    due_at=at,
                    created_at=at,
                )
            )
    session.flush()


def load_due(session: Session, destination: str, at: datetime) -> list[DeliveryRow]:
    """What can be sent now: of each study the oldest that waits, if it is due. Oldest first."""
    first = (
        select(func.min(DeliveryRow.number))
        .where(DeliveryRow.destination == destination, DeliveryRow.state == WAITING)
        .group_by(DeliveryRow.study)
    )
    query = select(DeliveryRow).where(
        DeliveryRow.destination == destination,
        DeliveryRow.state == WAITING,
        DeliveryRow.due_at <= at,
        DeliveryRow.number.in_(first),
    )
    return list(session.scalars(query.order_by(DeliveryRow.number).limit(BATCH)))


def mark_sent(session: Session, delivery_id: str) -> None:
    """Records that a delivery arrived."""
    _change(session, delivery_id, state=SENT, sent_at=now(), error=None, asked_at=None)


def mark_dead(session: Session, delivery_id: str, error: str) -> None:
    """Gives a delivery up; the next one of its study can be sent."""
    _change(session, delivery_id, state=DEAD, error=error)


def delay(session: Session, row: DeliveryRow, error: str, first_s: float, most_s: float) -> None:
    """Puts a delivery off: by `first_s`, doubled with each attempt, up to `most_s`."""
    pause = min(most_s, first_s * 2 ** min(row.attempts, 30))
    _change(session, row.delivery_id, attempts=row.attempts + 1, due_at=now() + timedelta(seconds=pause), error=error)


def retry_dead(session: Session, destination: str | None = None) -> int:
    """Puts what was given up back into the queue. Returns how many."""
    query = update(DeliveryRow).where(DeliveryRow.state == DEAD)
    if destination is not None:
        query = query.where(DeliveryRow.destination == destination)
    return session.execute(query.values(state=WAITING, attempts=0, due_at=now())).rowcount  # type: ignore[attr-defined]


def _change(session: Session, delivery_id: str, **values: object) -> None:
    session.execute(update(DeliveryRow).where(DeliveryRow.delivery_id == delivery_id).values(**values))
