"""Which of the objects that were sent their receivers have committed themselves to keep."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.config.gateway import Gateway
from chestai.results.dicom.uids import SOP_CLASSES, Kind, instance_uid
from serve.gateway.db import deliveries
from serve.gateway.db.films import StoredResult
from serve.gateway.db.models import DeliveryRow, FilmRow

NOT_KEPT = "the receiver does not keep it"


class SentObject(NamedTuple):
    """A delivery of a DICOM object that was sent, and the UIDs of its SOP class and instance."""

    row: DeliveryRow
    sop_class: str
    sop_instance: str


def load_unasked(session: Session, destination: str, before: datetime, most: int) -> list[SentObject]:
    """What a destination was sent and not asked about since `before`, oldest first."""
    asked_long_ago = or_(DeliveryRow.asked_at.is_(None), DeliveryRow.asked_at < before)
    return _load(session, DeliveryRow.destination == destination, asked_long_ago, most=most)


def mark_asked(session: Session, delivery_ids: Collection[str], transaction: str) -> None:
    """Records a request about deliveries. transaction: its UID."""
    query = update(DeliveryRow).where(DeliveryRow.delivery_id.in_(delivery_ids))
    session.execute(query.values(commitment=transaction, asked_at=now()))


def forget(session: Session, transaction: str) -> None:
    """Takes back a request that was not sent."""
    session.execute(update(DeliveryRow).where(DeliveryRow.commitment == transaction).values(asked_at=None))


def mark_committed(session: Session, destinations: Collection[str], transaction: str, kept: Collection[str]) -> int:
    """Records what is kept of what a request was about. Returns how many deliveries that were."""
    found = _load_asked(session, destinations, transaction, kept)
    for one in found:
        one.row.state = deliveries.COMMITTED
    return len(found)


def mark_missing(
    session: Session, destinations: Collection[str], transaction: str, missing: Collection[str], settings: Gateway
) -> tuple[list[DeliveryRow], list[DeliveryRow]]:
    """Queues what is not kept again, or gives it up if it is too old. Returns the deliveries of each kind."""
    again: list[DeliveryRow] = []
    given_up: list[DeliveryRow] = []
    for row, _, _ in _load_asked(session, destinations, transaction, missing):
        if now() - row.created_at > timedelta(hours=settings.give_up_hours):
            row.state, row.error = deliveries.DEAD, NOT_KEPT
            given_up.append(row)
        else:
            row.state = deliveries.WAITING
            deliveries.delay(session, row, NOT_KEPT, settings.retry_seconds, settings.max_retry_seconds)
            again.append(row)
    return again, given_up


def _load_asked(
    session: Session, destinations: Collection[str], transaction: str, instances: Collection[str]
) -> list[SentObject]:
    asked = _load(session, DeliveryRow.destination.in_(destinations), DeliveryRow.commitment == transaction)
    wanted = {*instances}
    return [one for one in asked if one.sop_instance in wanted]


def _load(session: Session, *conditions: ColumnElement[bool], most: int | None = None) -> list[SentObject]:
    query = (
        select(DeliveryRow, FilmRow)
        .join(FilmRow, FilmRow.film_id == DeliveryRow.film_id)
        .where(DeliveryRow.state == deliveries.SENT, *conditions)
        .order_by(DeliveryRow.number)
        .limit(most)
    )
    return [_identify(row, film) for row, film in session.execute(query)]


def _identify(row: DeliveryRow, film: FilmRow) -> SentObject:
    result, kind = StoredResult.model_validate(film.result), cast("Kind", row.kind)
    instance = instance_uid(film.sop_instance, result.model, result.version, kind, row.revision)
    return SentObject(row, SOP_CLASSES[kind], instance)
