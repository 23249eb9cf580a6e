"""Whose turn it is: films that failed come after all others, and none that cannot be handled holds up the rest."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serve.gateway.intake.folder import WaitingFilm


@dataclass
class Turns:
    """The order of waiting films, for one thread.

    Attributes:
        first_s, most_s: Seconds that a film rests after a fault: the first, doubled with each failure, up to the most.
        clock: Seconds of a monotonic clock.
    """

    first_s: float
    most_s: float
    clock: Callable[[], float] = time.monotonic
    failures: Counter[str] = field(default_factory=Counter)
    rests: dict[str, float] = field(default_factory=dict)

    def choose(self, waiting: Sequence[WaitingFilm], count: int) -> list[WaitingFilm]:
        """The first films, those that failed least before the others, without those that rest.

        Args:
            waiting: Oldest first.
            count: How many at most.
        """
        there = {film.film_id for film in waiting}
        for film_id in self.failures.keys() - there:
            del self.failures[film_id]
            self.rests.pop(film_id, None)
        due = [film for film in waiting if self.rests.get(film.film_id, 0.0) <= self.clock()]
        return sorted(due, key=lambda film: self.failures[film.film_id])[:count]

    def fail(self, film_id: str, is_fault: bool) -> None:
        """Notes a failure. is_fault: of ours, which lasts; one that may pass makes no film rest."""
        self.failures[film_id] += 1
        if is_fault:
            pause = min(self.most_s, self.first_s * 2 ** min(self.failures[film_id] - 1, 30))
            self.rests[film_id] = self.clock() + pause
