"""The list of films on disk gives back what it was given, each film once."""

from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given

from chestai.results.film import Film
from pipelines.scoring.objects.film_list import FilmList
from tests.chestai.results.samples import FILMS, HOSTILE_FILMS, RESULT, SECOND


@given(FILMS)
def test_gives_back_any_film(film: Film) -> None:
    result = replace(RESULT, film=film)
    with closing(FilmList()) as films:
        assert films.add(result) and not films.add(replace(result, score=0.1))
        assert [*films] == [result]


@pytest.mark.parametrize("film", HOSTILE_FILMS.values(), ids=HOSTILE_FILMS)
def test_gives_back_hostile_films(film: Film) -> None:
    with closing(FilmList()) as films:
        films.add(replace(RESULT, film=film))
        assert [*films] == [replace(RESULT, film=film)]


def test_films_come_in_the_same_order_whenever_they_were_added() -> None:
    with closing(FilmList()) as films:
        for result in (SECOND, RESULT):
            assert films.add(result)
        assert [*films] == [RESULT, SECOND]
