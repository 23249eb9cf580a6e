"""The records of films: what became of each, and its result."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult, ReviewedFinding
from chestai.triage.rule import Bucket
from serve.db.database import serialise_writes
from serve.db.models import ReviewRow
from serve.gateway.models import FilmRow
from serve.gateway.pseudonyms import Pseudonyms

PATIENT, ACCESSION = "patient", "accession"  # the kinds of pseudonyms


class StoredResult(BaseModel):
    """A `FilmResult` without its film and reviews, as the table stores it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    findings: tuple[tuple[str, float, float | None], ...]
    bucket: Bucket
    score: float | None
    model: str
    version: int
    at: AwareDatetime
    synthetic: bool

    def attach(self, film: Film, reviews: Sequence[ReviewedFinding] = (), revision: int = 0) -> FilmResult:
        """The result with its film."""
        facts = {name: getattr(self, name) for name in ("bucket", "score", "model", "version", "at", "synthetic")}
        findings = tuple(FindingResult(*finding) for finding in self.findings)
        return FilmResult(film=film, findings=findings, reviews=tuple(reviews), revision=revision, **facts)


def make_film_row(
    film_id: str, film: Film, pseudonyms: Pseudonyms, received_at: datetime, **outcome: Any
) -> dict[str, Any]:
    """The columns of a film. outcome: image_id and result, or reason and detail."""
    return {
        "film_id": film_id,
        "sop_instance": film.sop_instance,
        "study": film.study,
        "patient_key": pseudonyms.make(PATIENT, film.patient_id),
        "accession_key": pseudonyms.make(ACCESSION, film.accession),
        "revision": 0,
        "received_at": received_at,
        "done_at": now(),
        **outcome,
    }


def add_film(session: Session, row: dict[str, Any]) -> bool:
    """Records a film. Returns whether it was not there yet; one that was there stays as it is."""
    serialise_writes(session, row["film_id"])
    if session.get(FilmRow, row["film_id"]) is not None:
        return False
    session.add(FilmRow(**row))
    session.flush()
    return True


def load_reviews(session: Session, row: FilmRow) -> tuple[list[ReviewedFinding], datetime | None]:
    """The verdicts that stand on a film, by time: the latest of each reviewer on each finding, withdrawn ones left out.

    Returns:
        The verdicts, and the time of the newest one, withdrawn or not; None if there is none.
    """
    version = (row.result or {}).get("version")
    found = session.scalars(
        select(ReviewRow)
        .where(ReviewRow.image_id == row.image_id, ReviewRow.model_version == version)
        .order_by(ReviewRow.at, ReviewRow.review_id)
    ).all()
    latest = {(review.reviewer, review.finding): review for review in found}
    standing = [review for review in latest.values() if review.verdict != "withdrawn"]
    verdicts = [
        ReviewedFinding(review.finding, review.verdict, review.reviewer, review.at)  # type: ignore[arg-type]
        for review in sorted(standing, key=lambda review: (review.at, review.review_id))
    ]
    return verdicts, max((review.at for review in found), default=None)


def find_newly_reviewed(session: Session, limit: int = 100) -> list[FilmRow]:
    """Films with a review that is not yet in their result."""
    newer = (FilmRow.reviewed_at.is_(None)) | (ReviewRow.at > FilmRow.reviewed_at)
    query = select(FilmRow).join(ReviewRow, ReviewRow.image_id == FilmRow.image_id).where(newer).distinct().limit(limit)
    return list(session.scalars(query))
