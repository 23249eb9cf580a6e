"""Rejections: images that were received and not scored, and why."""

from datetime import datetime

from sqlalchemy.orm import Session

from serve.db.models import RejectionRow
from serve.db.records import Image, Rejection, record_image

MAX_DETAIL_LENGTH = 1000


def make_rejection(image_id: str, reason: str, detail: str, at: datetime) -> Rejection:
    """Creates a rejection whose detail a database can hold, though it may quote the file."""
    text = detail.replace("\x00", "").encode(errors="replace").decode()[:MAX_DETAIL_LENGTH]
    return Rejection(image_id=image_id, reason=reason, detail=text, at=at)


def record_rejection(session: Session, image: Image, rejection: Rejection) -> None:
    """Writes an image that was not scored, and why; of several reasons, the newest by `at` is kept.

    Raises:
        ValueError: The rejection is of another image.
    """
    if image.image_id != rejection.image_id:
        raise ValueError(f"rejection of {rejection.image_id} for image {image.image_id}")
    record_image(session, image)
    stored = session.get(RejectionRow, image.image_id)
    if stored is None or stored.at <= rejection.at:
        session.merge(RejectionRow(**rejection.model_dump()))
