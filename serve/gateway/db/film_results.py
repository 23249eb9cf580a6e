"""Loads the result of a film with whose it is, which stands in the film's file alone."""

from chestai.results.dicom.film_header import read_header
from chestai.results.film import Film
from chestai.results.film_result import FilmResult
from serve.db.database import Database
from serve.gateway.db.films import StoredResult, load_reviews
from serve.gateway.db.models import FilmRow
from serve.gateway.intake.folder import Intake


class FilmFileMissing(Exception):
    """The film or its file is gone."""


def load_result(database: Database, intake: Intake, film_id: str, revision: int) -> FilmResult:
    """The result of a film, with the reviews that stand if the revision is after the first.

    Raises:
        FilmFileMissing: It is gone, or was not scored.
        Unreadable: Its file is damaged.
    """
    path = intake.find(film_id)
    with database.read_session() as session:
        row = session.get(FilmRow, film_id)
        if path is None or row is None or row.result is None:
            raise FilmFileMissing(film_id)
        reviews = load_reviews(session, row) if revision else []
    identity = Film.from_header(read_header(path.read_bytes()))
    return StoredResult.model_validate(row.result).attach(identity, reviews, revision)
