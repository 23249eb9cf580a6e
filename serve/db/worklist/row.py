"""An image's row in the worklist: its place by the newest prediction, and its findings."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.db.models import ImageRow, PositiveRow, PredictionRow, ReviewRow, WorklistRow, table
from serve.db.worklist.studies import elect_lead

URGENCY: dict[str, int] = {"urgent": 0, "soon": 1, "routine": 2}


def add_worklist_row(session: Session, image: dict[str, Any], prediction: dict[str, Any]) -> None:
    """Adds the row of an image that was not there before, with its only prediction; both as columns of their tables."""
    image_id = image["image_id"]
    row = {
        "image_id": image_id,
        "reviewed_at": find_review_time(session, image_id),  # a review may have been written first
        "model_version": prediction["model_version"],
        "split": image["split"],
        "leads": not image["prior"],
        **_find_place(prediction["bucket"], prediction["score"], image["received_at"]),
    }
    session.execute(insert(table(WorklistRow)), [row])
    if prediction["positives"]:
        positives = [{"image_id": image_id, "finding": finding} for finding in sorted(set(prediction["positives"]))]
        session.execute(insert(table(PositiveRow)), positives)
    elect_lead(session, image["source"], image["study_id"])


def update_worklist_row(session: Session, image_id: str) -> None:
    """Adds or updates the row of an image; the caller holds the image's write lock."""
    image = session.get_one(ImageRow, image_id)
    newest = session.scalars(
        select(PredictionRow)
        .where(PredictionRow.image_id == image_id)
        .order_by(PredictionRow.at.desc(), PredictionRow.model_version.desc())
        .limit(1)
    ).one()
    place = _find_place(newest.bucket, newest.score, image.received_at)
    row = session.get(WorklistRow, image_id)
    if row is None:
        reviewed_at = find_review_time(session, image_id)
        row = WorklistRow(image_id=image_id, reviewed_at=reviewed_at, leads=not image.prior, **place)
        session.add(row)
    else:
        session.execute(delete(PositiveRow).where(PositiveRow.image_id == image_id))
        if any(getattr(row, name) != value for name, value in place.items()):
            row.moved_at = now()
        for name, value in place.items():
            setattr(row, name, value)
    row.model_version, row.split = newest.model_version, image.split
    if image.study_id is None and row.leads == image.prior:  # new, or a prior that is none any more
        row.leads, row.moved_at = not image.prior, now()
    session.flush()
    session.add_all(PositiveRow(image_id=image_id, finding=finding) for finding in set(newest.positives))
    elect_lead(session, image.source, image.study_id)


def find_review_time(session: Session, image_id: str) -> datetime | None:
    """Returns when an image was first reviewed, by a verdict that its reviewer did not withdraw; None if it was not."""
    rows = session.scalars(select(ReviewRow).where(ReviewRow.image_id == image_id)).all()
    reviews: dict[tuple[str, str, int], list[ReviewRow]] = {}
    for row in sorted(rows, key=lambda row: (row.at, row.review_id)):
        reviews.setdefault((row.reviewer, row.finding, row.model_version), []).append(row)
    return min((of_one[0].at for of_one in reviews.values() if of_one[-1].verdict != "withdrawn"), default=None)


def _find_place(bucket: str, score: float, received_at: datetime) -> dict[str, Any]:
    """Returns the columns that the worklist is sorted by."""
    return {"urgency": URGENCY[bucket], "falling": -score, "received_at": received_at}
