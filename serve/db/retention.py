"""Retention: what is older than `state.retention_days` goes; the audit stays.

`python -m serve.db.retention state.retention_days=N` does it once; the endpoint does it every hour.

Audit rows are kept for good: they name images by hash and hold no picture, file name or note, and a chain that is cut
proves less. A purge is itself an event in it.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.clock import now
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from serve.db.audit import AuditEvent, append
from serve.db.database import Database, open_existing, serialise_writes
from serve.db.models import (
    ImageRow,
    JobRow,
    LabelRow,
    PositiveRow,
    PredictionRow,
    ReviewRow,
    ShadowRow,
    Table,
    WorklistRow,
)
from serve.db.records import ENDED
from serve.storage.image_store import ImageStore

log = logging.getLogger("ray.serve")

BATCH = 500  # images a transaction, so that nobody waits for long
HOUR_S = 3600.0


@dataclass(frozen=True)
class PurgeCounts:
    """Rows that went; `unread`: of the images, those without a review."""

    images: int = 0
    predictions: int = 0
    reviews: int = 0
    labels: int = 0
    jobs: int = 0
    unread: int = 0
    shadows: int = 0

    def __add__(self, other: "PurgeCounts") -> "PurgeCounts":
        return PurgeCounts(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def purge(database: Database, before: datetime, actor: str, remove: Callable[[str], None]) -> PurgeCounts:
    """Delete what is older, with an event in the audit for every batch.

    An image goes, with its predictions, shadows, labels, reviews and place in the worklist, when it was received before
    and was not scored since. Jobs go that ended before.

    Args:
        before: the moment that divides old from young.
        remove: deletes the kept file of an image, by its ID; that there is none is no error. It is called before the
            rows go, so that a purge that was cut leaves no file without a row.
    """
    total = PurgeCounts()
    while True:
        done = _batch(database, before, actor, remove)
        total += done
        if done.images < BATCH:
            return total


def _batch(database: Database, before: datetime, actor: str, remove: Callable[[str], None]) -> PurgeCounts:
    with database.writing() as session:
        serialise_writes(session, "retention")
        young = exists().where(PredictionRow.image_id == ImageRow.image_id, PredictionRow.at >= before)
        old = select(ImageRow).where(ImageRow.received_at < before, ~young)
        seen = session.scalars(old.order_by(ImageRow.received_at).limit(BATCH)).all()
        for image_id in sorted(image.image_id for image in seen):
            serialise_writes(session, image_id)
        still = old.where(ImageRow.image_id.in_([image.image_id for image in seen]))  # one may have come again
        images = session.scalars(still.execution_options(populate_existing=True)).all()
        gone = [image.image_id for image in images]
        for image_id in gone:
            remove(image_id)
        unread = select(func.count()).where(WorklistRow.image_id.in_(gone), WorklistRow.reviewed_at.is_(None))
        waiting = session.scalar(unread) or 0
        nowhere = ~exists().where(ImageRow.image_id == ReviewRow.image_id)
        unknown = ~exists().where(ImageRow.image_id == ShadowRow.image_id)
        _delete(session, PositiveRow, PositiveRow.image_id.in_(gone))
        _delete(session, WorklistRow, WorklistRow.image_id.in_(gone))
        done = PurgeCounts(
            predictions=_delete(session, PredictionRow, PredictionRow.image_id.in_(gone)),
            labels=_delete(session, LabelRow, LabelRow.image_id.in_(gone)),
            images=_delete(session, ImageRow, ImageRow.image_id.in_(gone)),
            reviews=_delete(session, ReviewRow, ReviewRow.image_id.in_(gone))
            + _delete(session, ReviewRow, and_(ReviewRow.at < before, nowhere)),
            jobs=_delete(session, JobRow, and_(JobRow.state.in_(ENDED), JobRow.updated_at < before)),
            unread=waiting,
            shadows=_delete(session, ShadowRow, ShadowRow.image_id.in_(gone))
            + _delete(session, ShadowRow, and_(ShadowRow.at < before, unknown)),
        )
        if done != PurgeCounts():
            detail = {"before": before.isoformat(), **asdict(done)}
            append(session, AuditEvent(actor=actor, action="purge", detail=detail))
        return done


def purge_hourly(
    database: Database, kept: ImageStore, days: float, stopped: threading.Event, pause_s: float = HOUR_S
) -> None:
    """Purge now and every hour, until told to stop; what fails is tried again. Of several processes one is at it."""
    while True:
        try:
            done = purge(database, now() - timedelta(days=days), "system", kept.remove)
            if done != PurgeCounts():
                log.info("retention: %s went", told(done))
        except Exception as error:
            log.error("retention failed, to be tried again: %s", type(error).__name__)
        if stopped.wait(pause_s):
            return


def told(done: PurgeCounts) -> str:
    """What went, in words."""
    return ", ".join(f"{count} {name}" for name, count in asdict(done).items())


def run(config: Config, screen: Screen) -> None:
    """The command: purge once, and say what went.

    Raises:
        UserError: no limit is set, or the database is away.
    """
    days = config.state.retention_days
    if days is None:
        raise UserError("state.retention_days is null: say after how many days images go")
    database, before = open_existing(config), now() - timedelta(days=days)
    try:
        done = purge(database, before, "system", ImageStore(Lake(config.lake)).remove)
    except DBAPIError as error:
        raise UserError(
            f"state.url={database.name} cannot be used: {str(error.orig).strip().splitlines()[0]}"
        ) from error
    finally:
        database.close()
    screen.say(f"retention: {told(done)}: all from before {before:%Y-%m-%d %H:%M} UTC")


def _delete(session: Session, table: type[Table], where: ColumnElement[bool]) -> int:
    done = session.execute(delete(table).where(where), execution_options={"synchronize_session": False})
    assert isinstance(done, CursorResult)
    return done.rowcount


if __name__ == "__main__":
    main("serve.db.retention", run)
