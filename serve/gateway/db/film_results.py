"""Loads the result of a film with whose it is, which stands in the film's file alone."""

from chestai.results.dicom.film_header import read_film
from chestai.results.film_result import FilmResult
from serve.db.database import Database
from serve.gateway.db.films import StoredResult
from serve.gateway.db.models import FilmRow
from serve.gateway.db.revisions import load_revision
from serve.gateway.intake.folder import Intake


class FilmFileMissing(Exception):
    """The film or its file is gone."""


def load_result(database: Database, intake: Intake, film_id: str, revision: int) -> FilmResult:
    """The result of a film, with the reviews of the revision.

    Raises:
        FilmFileMissing: It is gone, or was not scored.
        Unreadable: Its file is damaged.
    """
    path = intake.find(film_id)
    with database.read_session() as session:
        row = session.get(FilmRow, film_id)
        if path is None or row is None or row.result is None:
            raise FilmFileMissing(film_id)
        reviews = load_revision(session, row, revision)
    identity = read_film(path)
    return StoredResult.model_validate(row.result).attach(identity, reviews, revision)
