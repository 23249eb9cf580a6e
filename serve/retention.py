"""Retention: what is older than the configuration allows goes; the audit stays.

Audit rows are kept for good: they name images by hash and hold no picture, file name or note, and a chain that is cut
proves less. A purge is itself an event in it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, func, select
from sqlalchemy.orm import Session

from serve.audit import Event, append
from serve.state.database import Database, take_turns
from serve.state.records import ENDED
from serve.state.tables import (
    ImageRow,
    JobRow,
    LabelRow,
    PositiveRow,
    PredictionRow,
    ReviewRow,
    Table,
    WorklistRow,
)

BATCH = 500  # images a transaction, so that nobody waits for long


@dataclass(frozen=True)
class Purged:
    """Rows that went; `unread`: of the images, those without a review."""

    images: int = 0
    predictions: int = 0
    reviews: int = 0
    labels: int = 0
    jobs: int = 0
    unread: int = 0

    def __add__(self, other: "Purged") -> "Purged":
        return Purged(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def purge(database: Database, before: datetime, actor: str, remove: Callable[[str], None]) -> Purged:
    """Delete what is older, with an event in the audit for every batch.

    An image goes, with its predictions, labels, reviews and place in the worklist, when it was received before and was
    not scored since. Jobs go that ended before.

    Args:
        before: the moment that divides old from young.
        remove: deletes the file behind an image's URI; one that is gone already is no error. It is called before the
            rows go, so that a purge that was cut leaves no file without a row.
    """
    total = Purged()
    while True:
        done = _batch(database, before, actor, remove)
        total += done
        if done.images < BATCH:
            return total


def _batch(database: Database, before: datetime, actor: str, remove: Callable[[str], None]) -> Purged:
    with database.writing() as session:
        young = exists().where(PredictionRow.image_id == ImageRow.image_id, PredictionRow.at >= before)
        old = select(ImageRow).where(ImageRow.received_at < before, ~young)
        seen = session.scalars(old.order_by(ImageRow.received_at).limit(BATCH)).all()
        for image_id in sorted(image.image_id for image in seen):
            take_turns(session, image_id)
        still = old.where(ImageRow.image_id.in_([image.image_id for image in seen]))  # one may have come again
        images = session.scalars(still.execution_options(populate_existing=True)).all()
        for image in images:
            if image.uri is not None:
                remove(image.uri)
        gone = [image.image_id for image in images]
        unread = select(func.count()).where(WorklistRow.image_id.in_(gone), WorklistRow.reviewed_at.is_(None))
        waiting = session.scalar(unread) or 0
        nowhere = ~exists().where(ImageRow.image_id == ReviewRow.image_id)
        _delete(session, PositiveRow, PositiveRow.image_id.in_(gone))
        _delete(session, WorklistRow, WorklistRow.image_id.in_(gone))
        done = Purged(
            predictions=_delete(session, PredictionRow, PredictionRow.image_id.in_(gone)),
            labels=_delete(session, LabelRow, LabelRow.image_id.in_(gone)),
            images=_delete(session, ImageRow, ImageRow.image_id.in_(gone)),
            reviews=_delete(session, ReviewRow, ReviewRow.image_id.in_(gone))
            + _delete(session, ReviewRow, and_(ReviewRow.at < before, nowhere)),
            jobs=_delete(session, JobRow, and_(JobRow.state.in_(ENDED), JobRow.updated_at < before)),
            unread=waiting,
        )
        if done != Purged():
            detail = {"before": before.isoformat(), **asdict(done)}
            append(session, Event(actor=actor, action="purge", detail=detail))
        return done


def _delete(session: Session, table: type[Table], where: ColumnElement[bool]) -> int:
    done = session.execute(delete(table).where(where), execution_options={"synchronize_session": False})
    assert isinstance(done, CursorResult)
    return done.rowcount
