"""A reading queue, simulated: how long urgent and routine studies wait under different orders of reading.

Studies arrive at random (Poisson), each reader reads one at a time and finishes it before opening another
(non-preemptive), and no reader idles while a study waits.
"""

from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from math import inf, isfinite, log, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

# fifo: in the order of arrival. score: highest score first, ties first come. score_capped: a study that has waited
# longer than the cap goes before all others, the longest waiting first; else by score.
POLICIES = ("fifo", "score", "score_capped")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """A reading room.

    Attributes:
        studies_per_hour: Poisson arrivals, more than 0.
        readers: who read at the same time, one study each; at least 1.
        minutes: mean of reading a study, log-normal; more than 0.
        minutes_sd: its standard deviation; 0 for reading times that are all the same.
        hours: in which studies arrive, a run; each run starts with an empty room and reads until no study is left.
        runs: repetitions, at least 1.
        max_wait_minutes: of `score_capped`: who waited longer goes first; not negative.
        seed: of arrivals, reading times and studies; not negative.

    Raises:
        ValueError: a value outside its range.
    """

    studies_per_hour: float
    readers: int
    minutes: float
    minutes_sd: float
    hours: float
    runs: int
    max_wait_minutes: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("studies_per_hour", "minutes", "hours"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value} must be a number above 0")
        for name in ("readers", "runs"):
            value = getattr(self, name)
            if not value >= 1:
                raise ValueError(f"{name} = {value} must be at least 1")
        if not (isfinite(self.minutes_sd) and self.minutes_sd >= 0):
            raise ValueError(f"minutes_sd = {self.minutes_sd} must be a number from 0 on")
        for name in ("max_wait_minutes", "seed"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} = {value} must not be negative")

    @property
    def load(self) -> float:
        """Work that arrives over work that can be done; from 1 on queues only grow."""
        return self.studies_per_hour * self.minutes / 60 / self.readers


@dataclass(frozen=True)
class WaitReport:
    """Minutes from a study's arrival until a reader opens it, over the studies of all runs.

    `group` is `urgent`, `routine` (not urgent) or `all`; NaN where it has no study.
    """

    policy: str
    group: str
    studies: int
    mean: float
    median: float
    p95: float
    maximum: float


@dataclass(frozen=True)
class QueueReport:
    """`waits`: policies in the order of `POLICIES`, for each the groups urgent, routine, all."""

    scenario: Scenario
    waits: tuple[WaitReport, ...]


def simulate_queue(scores: ArrayLike, urgent: ArrayLike, scenario: Scenario) -> QueueReport:
    """Run every policy over the same arrivals, reading times and studies (common random numbers).

    Studies are drawn with replacement from the given pairs of score and truth; reading times depend on neither. Every
    study that arrives is read before its run ends, so that no wait is cut off.

    Args:
        scores: (N,) triage scores, higher for sooner.
        urgent: (N,) 1 or 0, whether each study is truly urgent.
        scenario: the reading room.

    Raises:
        ValueError: no studies, shapes that do not fit, a NaN score, or a truth that is neither 1 nor 0 (leave out
            studies whose truth is not known).
    """
    values, truths = np.asarray(scores, dtype=np.float64), np.asarray(urgent, dtype=np.float64)
    if values.ndim != 1 or values.shape != truths.shape or not len(values):
        raise ValueError(f"scores {values.shape} and urgent {truths.shape} must both be of shape (N,), N at least 1")
    if np.isnan(values).any():
        raise ValueError(f"the score of study {np.flatnonzero(np.isnan(values))[0]} is NaN")
    strange = truths[(truths != 0) & (truths != 1)]
    if strange.size:
        raise ValueError(f"urgent {strange[0]} must be 1 or 0: leave out studies whose truth is not known")

    patience = dict(zip(POLICIES, (-inf, inf, scenario.max_wait_minutes), strict=True))
    generator = np.random.default_rng(scenario.seed)
    drawn: list[NDArray[np.intp]] = []
    waits: dict[str, list[Floats]] = {policy: [] for policy in POLICIES}
    for _ in range(scenario.runs):
        arrivals = _arrivals(scenario, generator)
        reading = _reading_minutes(scenario, len(arrivals), generator)
        studies = generator.integers(len(values), size=len(arrivals))
        drawn.append(studies)
        for policy in POLICIES:
            waits[policy].append(_waits(arrivals, reading, values[studies], scenario.readers, patience[policy]))

    is_urgent = truths[np.concatenate(drawn)] == 1
    groups = {"urgent": is_urgent, "routine": ~is_urgent, "all": np.ones_like(is_urgent)}
    return QueueReport(
        scenario,
        tuple(
            _summary(policy, group, np.concatenate(waits[policy])[members])
            for policy in POLICIES
            for group, members in groups.items()
        ),
    )


def _arrivals(scenario: Scenario, generator: np.random.Generator) -> Floats:
    """(K,) ascending minutes of a Poisson process: given their number, its events are uniform."""
    count = generator.poisson(scenario.studies_per_hour * scenario.hours)
    return np.sort(generator.random(count)) * scenario.hours * 60


def _reading_minutes(scenario: Scenario, studies: int, generator: np.random.Generator) -> Floats:
    """(K,) log-normal minutes of the scenario's mean and standard deviation."""
    variance = log(1 + (scenario.minutes_sd / scenario.minutes) ** 2)
    return generator.lognormal(log(scenario.minutes) - variance / 2, sqrt(variance), studies)


def _waits(arrivals: Floats, reading: Floats, scores: Floats, readers: int, patience: float) -> Floats:
    """(K,) minutes that each study of one run waits, from arrival to opening.

    Args:
        arrivals: (K,) ascending minutes.
        reading: (K,) minutes that a reader needs.
        scores: (K,) higher for sooner.
        readers: how many read at the same time.
        patience: minutes; a study that waited longer goes first, the longest waiting before others. -inf is first
            come, first served; inf is by score alone.
    """
    count = len(arrivals)
    # Places in the order of score, ties first come: one whole number a study makes the cheapest heap.
    by_score = np.argsort(-scores, kind="stable")
    place = np.empty(count, dtype=np.intp)
    place[by_score] = np.arange(count)
    comes, lasts, places, study_at = arrivals.tolist(), reading.tolist(), place.tolist(), by_score.tolist()

    free = [0.0] * readers  # when each reader is free again, as a heap
    waiting: list[int] = []  # places; those opened out of turn stay until they come up
    opened = [nan] * count
    is_open = [False] * count
    arrived = oldest = 0
    for _ in range(count):
        while is_open[oldest]:
            oldest += 1
        now = max(free[0], comes[oldest])  # where nobody waits, the reader idles until the next study comes
        while arrived < count and comes[arrived] <= now:
            heappush(waiting, places[arrived])
            arrived += 1
        study = oldest
        if not now - comes[oldest] > patience:
            study = study_at[heappop(waiting)]
            while is_open[study]:
                study = study_at[heappop(waiting)]
        is_open[study] = True
        opened[study] = now
        heapreplace(free, now + lasts[study])
    return np.array(opened) - arrivals


def _summary(policy: str, group: str, waits: Floats) -> WaitReport:
    if not len(waits):
        return WaitReport(policy, group, 0, nan, nan, nan, nan)
    median, p95 = np.quantile(waits, [0.5, 0.95])
    return WaitReport(policy, group, len(waits), float(waits.mean()), float(median), float(p95), float(waits.max()))
