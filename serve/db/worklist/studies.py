"""Studies of several images: the most urgent image stands for its study in the worklist. Priors are not in it."""

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import Session, aliased

from chestai.clock import now
from serve.db.database import serialise_writes
from serve.db.models import ImageRow, WorklistRow


def elect_lead(session: Session, source: str | None, study_id: str | None) -> None:
    """Lets the most urgent image of a study lead it; the others leave the list, and come back if they become the lead.

    Call it after each change of a row's place, and after a row was deleted.
    """
    if study_id is None:
        return
    serialise_writes(session, f"study {source} {study_id}")
    of_study = (ImageRow.study_id == study_id, ImageRow.source.is_not_distinct_from(source))
    rows = session.scalars(
        select(WorklistRow)
        .join(ImageRow, ImageRow.image_id == WorklistRow.image_id)
        .where(*of_study, ImageRow.prior.is_(False))
        .order_by(WorklistRow.urgency, WorklistRow.falling, WorklistRow.received_at, WorklistRow.image_id)
    ).all()
    for position, row in enumerate(rows):
        if row.leads != (position == 0):
            row.leads = position == 0
            row.moved_at = now() if row.leads else row.moved_at  # as a study that was scored again
    session.flush()


def count_images() -> ScalarSelect[int]:
    """The number of scored images in the study of an `ImageRow`, for a query that selects such rows."""
    image, row = aliased(ImageRow), aliased(WorklistRow)
    return (
        select(func.count())
        .select_from(image)
        .join(row, row.image_id == image.image_id)
        .where(image.study_id == ImageRow.study_id, image.source.is_not_distinct_from(ImageRow.source))
        .where(image.prior.is_(False))
        .correlate(ImageRow)
        .scalar_subquery()
    )
