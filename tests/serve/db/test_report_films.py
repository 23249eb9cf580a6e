"""What the draft of a report speaks of: the newest prediction, and an earlier image that it can be compared with."""

from datetime import date
from typing import Any

import pytest

from chestai.results.film_result import FilmResult, FindingResult
from serve.db.database import Database
from serve.db.records import record_image, record_prediction
from serve.db.worklist.report_films import ReportFilms, load_report_films
from tests.serve.support.samples import make_image, make_prediction, sha

POINTS = {"Hernia": 0.2, "Mass": 0.5, "Nodule": 0.1}


def add(database: Database, name: str, minutes: float = 0, version: int = 1, score: float = 0.1, **more: Any) -> None:
    with database.write_session() as session:
        image = make_image(name, 0, patient_key="88", source="nih", **more)
        record_prediction(session, image, make_prediction(name, score, minutes, version))


def load(database: Database, name: str) -> ReportFilms | None:
    with database.read_session() as session:
        return load_report_films(session, sha(name))


def name_films(films: ReportFilms | None) -> list[tuple[str, int] | None]:
    """Image and version of the film and of the earlier one."""
    assert films is not None
    return [
        None if one is None else (one.image.image_id, one.prediction.model_version)
        for one in (films.film, films.earlier)
    ]


def test_the_newest_prediction_counts(database: Database) -> None:
    assert load(database, "a") is None
    with database.write_session() as session:
        record_image(session, make_image("a"))
    assert load(database, "a") == ReportFilms(None)
    add(database, "a", 5, version=2)
    add(database, "a", 9, version=1)
    assert name_films(load(database, "a")) == [(sha("a"), 1), None]


def test_the_earlier_film_is_the_newest_of_another_study(database: Database) -> None:
    add(database, "old", studied_on=date(2020, 1, 1), study_id="1")
    add(database, "last", studied_on=date(2021, 1, 1), study_id="2")
    add(database, "same study", studied_on=date(2022, 1, 1), study_id="3")
    add(database, "now", studied_on=date(2022, 1, 2), study_id="3")
    add(database, "later", studied_on=date(2023, 1, 1), study_id="4")
    assert name_films(load(database, "now")) == [(sha("now"), 1), (sha("last"), 1)]
    assert name_films(load(database, "old"))[1] is None


@pytest.mark.parametrize(("served", "compared"), [(1, 1), (2, 2), (3, 2)])
def test_a_prediction_of_the_same_version_is_compared(database: Database, served: int, compared: int) -> None:
    add(database, "then", 1, version=1, studied_on=date(2020, 1, 1))
    add(database, "then", 2, version=2, studied_on=date(2020, 1, 1))
    add(database, "now", 3, version=served, studied_on=date(2021, 1, 1))
    assert name_films(load(database, "now"))[1] == (sha("then"), compared)


def test_findings_are_in_the_order_of_the_model(database: Database) -> None:
    add(database, "a", score=0.7)
    films = load(database, "a")
    assert films is not None and films.film is not None
    result: FilmResult = films.film.make_result("chestai", POINTS, synthetic=True)
    assert result.findings == (FindingResult("Hernia", 0.0, None), FindingResult("Mass", 0.7, 0.5))
    assert (result.film.patient_id, result.film.issuer, result.version, result.synthetic) == ("88", "nih", 1, True)
