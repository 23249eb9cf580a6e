"""Claims: who is reading a study, so that two readers do not read the same one at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from serve.db.database import serialise_writes
from serve.db.models import ClaimRow, WorklistRow

CLAIM_TIME = timedelta(minutes=5)  # a reader's page prolongs its claim; that of a page that is gone ends by itself


@dataclass(frozen=True)
class Claim:
    """Who is reading a study, and until when."""

    reader: str
    until: datetime


def claim_study(session: Session, image_id: str, reader: str, at: datetime) -> Claim:
    """Claims a study for a reader, or prolongs the claim; returns the claim of another reader if there is one.

    Raises:
        LookupError: The worklist has no such study.
    """
    serialise_writes(session, image_id)
    if session.get(WorklistRow, image_id) is None:
        raise LookupError(image_id)
    row = session.get(ClaimRow, image_id)
    if row is not None and row.until > at and row.reader != reader:
        return Claim(row.reader, row.until)
    until = at + CLAIM_TIME
    session.merge(ClaimRow(image_id=image_id, reader=reader, until=until))
    return Claim(reader, until)


def release_study(session: Session, image_id: str, reader: str) -> None:
    """Ends a reader's claim; that of another reader stays."""
    session.execute(delete(ClaimRow).where(ClaimRow.image_id == image_id, ClaimRow.reader == reader))
