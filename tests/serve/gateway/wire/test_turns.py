"""Whose turn it is among films of which some fail."""

from pathlib import Path

from serve.gateway.intake.folder import WaitingFilm
from serve.gateway.intake.turns import Turns

FILMS = [WaitingFilm(str(number), Path(), number, prior=False) for number in range(6)]


class Clock:
    """Seconds, which a test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def names(turns: Turns, waiting: list[WaitingFilm] = FILMS) -> str:
    return "".join(film.film_id for film in turns.choose(waiting, 3))


def test_films_that_failed_come_after_the_others() -> None:
    turns = Turns(5, 900)
    assert names(turns) == "012"
    for film_id in "0113":
        turns.fail(film_id, is_fault=False)
    assert names(turns) == "245" and names(turns, FILMS[:4]) == "203"
    assert names(turns, FILMS[4:]) == "45" and names(turns) == "012", "who was gone has failed no more"


def test_a_film_that_is_a_fault_of_ours_rests_longer_each_time() -> None:
    clock = Clock()
    turns = Turns(5, 900, clock)
    for pause in (5, 10, 20, 40, 80, 160, 320, 640, 900, 900):
        turns.fail("0", is_fault=True)
        assert names(turns, FILMS[:1]) == ""
        clock.seconds += pause - 0.1
        assert names(turns, FILMS[:2]) == "1"
        clock.seconds += 0.1
        assert names(turns, FILMS[:2]) == "10"
