"""The records of films: what became of each, and its result."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult, ResultBand, ReviewedFinding
from chestai.triage.rule import Bucket
from serve.db.database import serialise_writes
from serve.db.models import ReviewRow
from serve.gateway.db.models import FilmRow
from serve.schemas.inference import ModelInfo
from serve.storage.pseudonyms import ACCESSION, PATIENT, Pseudonyms


class StoredResult(BaseModel):
    """A `FilmResult` without its film and reviews, as the table stores it. bands: by finding, if it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    findings: tuple[tuple[str, float, float | None], ...]
    bands: dict[str, ResultBand] = {}
    bucket: Bucket
    score: float | None
    model: str
    version: int
    at: AwareDatetime
    synthetic: bool

    @classmethod
    def of(
        cls,
        model: ModelInfo,
        bucket: Bucket,
        score: float | None = None,
        findings: Sequence[tuple[str, float, float | None]] = (),
        bands: Mapping[str, ResultBand] | None = None,
    ) -> Self:
        """The result of now. score: None, and findings: empty, from an endpoint that shows no numbers."""
        about = {"model": model.name, "version": model.version, "synthetic": model.synthetic, "at": now()}
        facts = {"findings": tuple(findings), "bands": dict(bands or {}), "bucket": bucket, "score": score}
        return cls.model_validate({**facts, **about})

    def attach(self, film: Film, reviews: Sequence[ReviewedFinding] = (), revision: int = 0) -> FilmResult:
        """The result with its film."""
        facts = {name: getattr(self, name) for name in ("bucket", "score", "model", "version", "at", "synthetic")}
        findings = tuple(FindingResult(*finding, self.bands.get(finding[0])) for finding in self.findings)
        return FilmResult(film=film, findings=findings, reviews=tuple(reviews), revision=revision, **facts)


def make_film_row(
    film_id: str, film: Film, pseudonyms: Pseudonyms, received_at: datetime, **outcome: Any
) -> dict[str, Any]:
    """The columns of a film. outcome: prior, and image_id and result, or reason and detail."""
    return {
        "film_id": film_id,
        "sop_instance": film.sop_instance,
        "study": film.study,
        "patient_key": pseudonyms.make(PATIENT, film.patient_id),
        "accession_key": pseudonyms.make(ACCESSION, film.accession),
        "revision": 0,
        "reviews": 0,
        "prior": False,
        "received_at": received_at,
        "done_at": now(),
        **outcome,
    }


def add_film(session: Session, row: dict[str, Any]) -> bool:
    """Records a film. Returns whether it was not there yet; what was there stays as it is, unless it was a prior."""
    serialise_writes(session, row["film_id"])
    there = session.get(FilmRow, row["film_id"])
    if there is not None:
        if row["prior"] or not there.prior:
            return False
        session.delete(there)  # it was sent to be read since, so it counts as one that was never here
        session.flush()
    session.add(FilmRow(**row))
    session.flush()
    return True


def load_reviews(session: Session, row: FilmRow) -> list[ReviewedFinding]:
    """The verdicts that stand on a film, by time: of each reviewer on each finding the latest, if not withdrawn."""
    version = (row.result or {}).get("version")
    found = session.scalars(
        select(ReviewRow)
        .where(ReviewRow.image_id == row.image_id, ReviewRow.model_version == version)
        .order_by(ReviewRow.at, ReviewRow.review_id)
    ).all()
    latest = {(review.reviewer, review.finding): review for review in found}
    standing = [review for review in latest.values() if review.verdict != "withdrawn"]
    return [
        ReviewedFinding(review.finding, review.verdict, review.reviewer, review.at)  # type: ignore[arg-type]
        for review in sorted(standing, key=lambda review: (review.at, review.review_id))
    ]


def count_reviews(session: Session, row: FilmRow) -> int:
    """How many reviews a film has, those that were replaced or withdrawn too."""
    return session.scalar(select(func.count()).where(ReviewRow.image_id == row.image_id)) or 0


def find_newly_reviewed(session: Session, limit: int = 100) -> list[str]:
    """The IDs of films, not priors, with other reviews than their result has. Counted: a review may arrive late."""
    query = (
        select(FilmRow.film_id)
        .join(ReviewRow, ReviewRow.image_id == FilmRow.image_id)
        .where(FilmRow.prior.is_(False))
        .group_by(FilmRow.film_id)
        .having(func.count() != FilmRow.reviews)
        .limit(limit)
    )
    return list(session.scalars(query))
