"""Retention: deletes what is older than `state.retention_days`, except the audit log.

The endpoint purges every hour; `python -m serve.admin purge` does it once. Audit rows are kept for good: they name
images by hash, hold no picture, file name or note, and a chain that was cut proves less. Each purge is an audit event.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database, serialise_writes
from serve.db.leftovers import LeftoverCounts, Leftovers
from serve.db.models import (
    Base,
    ClaimRow,
    ImageRow,
    JobRow,
    LabelRow,
    PositiveRow,
    PredictionRow,
    RejectionRow,
    ReviewRow,
    SessionRow,
    ShadowRow,
    WorklistRow,
)
from serve.db.records import FINISHED_STATES
from serve.db.worklist.studies import elect_lead
from serve.search.embeddings import EmbeddingRow
from serve.storage.image_store import ImageStore

log = logging.getLogger("ray.serve")

BATCH_SIZE = 500  # images per transaction, so that other writers do not wait long
HOUR_S = 3600.0


@dataclass(frozen=True)
class PurgeCounts:
    """Deleted rows. unread: deleted images without a review. sessions: expired ones, however young."""

    images: int = 0
    predictions: int = 0
    reviews: int = 0
    labels: int = 0
    jobs: int = 0
    unread: int = 0
    shadows: int = 0
    sessions: int = 0

    def __add__(self, other: "PurgeCounts") -> "PurgeCounts":
        return PurgeCounts(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def purge(database: Database, before: datetime, actor: str, remove: Callable[[str], None]) -> PurgeCounts:
    """Deletes what is older than `before`, with an audit event for each batch.

    An image that was neither received nor scored since then goes, with its predictions, shadow predictions, embedding,
    labels, reviews and worklist row. So does a job that finished before, and a session that has expired by now.

    Args:
        remove: Deletes the stored file of an image ID, if there is one. It is called before the rows are deleted, so
            an interrupted purge leaves no file without a row.
    """
    total = PurgeCounts()
    while True:
        counts = _purge_batch(database, before, actor, remove)
        total += counts
        if counts.images < BATCH_SIZE:
            return total


def _purge_batch(database: Database, before: datetime, actor: str, remove: Callable[[str], None]) -> PurgeCounts:
    with database.write_session(deadline_s=None) as session:
        image_ids = _lock_old_images(session, before)
        for image_id in image_ids:
            remove(image_id)
        counts = _delete_rows(session, image_ids, before)
        if counts != PurgeCounts():
            detail = {"before": before.isoformat(), **asdict(counts)}
            append_event(session, AuditEvent(actor=actor, action="purge", detail=detail))
        return counts


def _lock_old_images(session: Session, before: datetime) -> list[str]:
    """Returns a batch of images that are still old once nobody else can write them."""
    serialise_writes(session, "retention")
    recent = exists().where(PredictionRow.image_id == ImageRow.image_id, PredictionRow.at >= before)
    old = select(ImageRow.image_id).where(ImageRow.received_at < before, ~recent)
    candidates = session.scalars(old.order_by(ImageRow.received_at).limit(BATCH_SIZE)).all()
    for image_id in sorted(candidates):
        serialise_writes(session, image_id)
    return list(session.scalars(old.where(ImageRow.image_id.in_(candidates))))


def _delete_rows(session: Session, image_ids: list[str], before: datetime) -> PurgeCounts:
    """Deletes the rows of images, orphaned reviews and shadow predictions, finished jobs, and expired sessions."""
    studies = session.execute(select(ImageRow.source, ImageRow.study_id).where(ImageRow.image_id.in_(image_ids)))
    studies_left = {(source, study_id) for source, study_id in studies}
    is_unread = (WorklistRow.image_id.in_(image_ids), WorklistRow.reviewed_at.is_(None))
    unread = session.scalar(select(func.count()).where(*is_unread)) or 0
    review_orphaned = ~exists().where(ImageRow.image_id == ReviewRow.image_id)
    shadow_orphaned = ~exists().where(ImageRow.image_id == ShadowRow.image_id)
    _delete(session, ClaimRow, or_(ClaimRow.image_id.in_(image_ids), ClaimRow.until < before))
    _delete(session, EmbeddingRow, EmbeddingRow.image_id.in_(image_ids))
    _delete(session, RejectionRow, RejectionRow.image_id.in_(image_ids))
    _delete(session, PositiveRow, PositiveRow.image_id.in_(image_ids))
    _delete(session, WorklistRow, WorklistRow.image_id.in_(image_ids))
    for source, study_id in sorted(studies_left, key=str):
        elect_lead(session, source, study_id)
    return PurgeCounts(
        predictions=_delete(session, PredictionRow, PredictionRow.image_id.in_(image_ids)),
        labels=_delete(session, LabelRow, LabelRow.image_id.in_(image_ids)),
        images=_delete(session, ImageRow, ImageRow.image_id.in_(image_ids)),
        reviews=_delete(session, ReviewRow, ReviewRow.image_id.in_(image_ids))
        + _delete(session, ReviewRow, and_(ReviewRow.at < before, review_orphaned)),
        jobs=_delete(session, JobRow, and_(JobRow.state.in_(FINISHED_STATES), JobRow.updated_at < before)),
        unread=unread,
        shadows=_delete(session, ShadowRow, ShadowRow.image_id.in_(image_ids))
        + _delete(session, ShadowRow, and_(ShadowRow.at < before, shadow_orphaned)),
        sessions=_delete(session, SessionRow, SessionRow.expires_at <= now()),
    )


def _delete(session: Session, table: type[Base], where: ColumnElement[bool]) -> int:
    result = session.execute(delete(table).where(where), execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return result.rowcount


def purge_hourly(
    database: Database,
    images: ImageStore,
    leftovers: Leftovers,
    days: float,
    stop: threading.Event,
    interval_s: float = HOUR_S,
) -> None:
    """Purges now and every hour until `stop` is set; failures are retried. Processes take turns."""
    while True:
        try:
            before = now() - timedelta(days=days)
            counts = purge(database, before, "system", images.remove)
            if counts != PurgeCounts():
                log.info("retention deleted %s", describe_counts(counts))
            files = leftovers.purge(database, before, "system")
            if files != LeftoverCounts():
                log.info("retention deleted %s", describe_counts(files))
        except Exception as error:
            log.error("retention failed and will be retried: %s", type(error).__name__)
        if stop.wait(interval_s):
            return


def describe_counts(counts: PurgeCounts | LeftoverCounts) -> str:
    """Returns the counts as text, such as `3 images, 4 predictions`."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(counts).items())
