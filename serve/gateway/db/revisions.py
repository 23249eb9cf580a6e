"""What reviewers said of a film at each revision: a revision reads the same whatever is said later."""

from collections.abc import Sequence

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from chestai.results.film_result import ReviewedFinding
from serve.gateway.db.films import load_reviews
from serve.gateway.db.models import FilmRow, RevisionRow

_REVIEWS = TypeAdapter(list[ReviewedFinding])


def record_revision(session: Session, film_id: str, revision: int, reviews: Sequence[ReviewedFinding]) -> None:
    """Records the reviews that make a revision."""
    stored = _REVIEWS.dump_python([*reviews], mode="json")
    session.add(RevisionRow(film_id=film_id, revision=revision, reviews=stored))


def load_revision(session: Session, film: FilmRow, revision: int) -> list[ReviewedFinding]:
    """The reviews of a revision; of one that was made before they were recorded, those that stand now."""
    if revision == 0:
        return []
    row = session.get(RevisionRow, (film.film_id, revision))
    return load_reviews(session, film) if row is None else _REVIEWS.validate_python(row.reviews)
