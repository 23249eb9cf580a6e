"""What the endpoint's database knows of images that a search finds, and of the patients who must not be found."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from serve.db.models import ImageRow, ReviewRow, WorklistRow
from serve.db.records import Verdict


@dataclass(frozen=True)
class KnownImage:
    """An image with a record.

    readable: whether its file was kept, or named by a URI. verdicts: finding -> the last verdict of each reader that
    stands. reviewed: whether there is one.
    """

    readable: bool
    verdicts: Mapping[str, list[Verdict]]
    reviewed: bool


def load_known(session: Session, image_ids: Collection[str]) -> dict[str, KnownImage]:
    """Loads those of some images that have a record."""
    images = session.scalars(select(ImageRow).where(ImageRow.image_id.in_(image_ids))).all()
    reviews = session.scalars(
        select(ReviewRow).where(ReviewRow.image_id.in_(image_ids)).order_by(ReviewRow.at, ReviewRow.review_id)
    )
    last = {(row.image_id, row.finding, row.reviewer): row.verdict for row in reviews}
    verdicts: dict[str, dict[str, list[Verdict]]] = {}
    for (image_id, finding, _), verdict in last.items():
        if verdict != "withdrawn":
            verdicts.setdefault(image_id, {}).setdefault(finding, []).append(verdict)  # type: ignore[arg-type]
    return {
        image.image_id: KnownImage(
            readable=image.uri is not None,
            verdicts=verdicts.get(image.image_id, {}),
            reviewed=image.image_id in verdicts,
        )
        for image in images
    }


def list_reviewed(session: Session) -> list[str]:
    """The images with a verdict that stands."""
    return list(session.scalars(select(WorklistRow.image_id).where(WorklistRow.reviewed_at.is_not(None))))


def list_of_patient(
    session: Session, image_id: str | None = None, source: str | None = None, patient_key: str | None = None
) -> list[str]:
    """The recorded images of a patient, by one of the images, or by source and patient key."""
    if image_id is not None:
        image = session.get(ImageRow, image_id)
        source, patient_key = (source, patient_key) if image is None else (image.source, image.patient_key)
    if patient_key is None:
        return []
    same = (ImageRow.patient_key == patient_key, ImageRow.source.is_not_distinct_from(source))
    return list(session.scalars(select(ImageRow.image_id).where(*same)))
