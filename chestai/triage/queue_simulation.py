"""Simulates a reading queue: how long urgent and routine studies wait under different orders of reading.

Studies arrive at random (Poisson). Each reader reads one study at a time and finishes it before opening another
(non-preemptive). No reader idles while a study waits.
"""

from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from math import inf, isfinite, log, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.masking import Floats

# fifo: in the order of arrival. score: highest score first, ties by arrival. score_capped: a study that has waited
# longer than the cap goes before all others, the longest waiting first; else by score.
POLICIES = ("fifo", "score", "score_capped")


@dataclass(frozen=True)
class Scenario:
    """A reading room.

    Attributes:
        studies_per_hour: Poisson arrivals, more than 0.
        readers: Readers at work at the same time, at least 1.
        minutes: Mean reading time of a study, log-normal; more than 0.
        minutes_sd: Its standard deviation; 0 if all reading times are the same.
        hours: Hours of each run in which studies arrive. A run starts with an empty room and ends when all are read.
        runs: Repetitions, at least 1.
        max_wait_minutes: The cap of `score_capped`: studies that waited longer go first; not negative.
        seed: Of arrivals, reading times and studies; not negative.

    Raises:
        ValueError: A value is outside its range.
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
            raise ValueError(f"minutes_sd = {self.minutes_sd} must be a number of 0 or more")
        for name in ("max_wait_minutes", "seed"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} = {value} must not be negative")

    @property
    def load(self) -> float:
        """Arriving work over the work that the readers can do; from 1 on, queues only grow."""
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
    """`waits`: policies in the order of `POLICIES`, each with the groups urgent, routine, all."""

    scenario: Scenario
    waits: tuple[WaitReport, ...]


def simulate_queue(scores: ArrayLike, urgent: ArrayLike, scenario: Scenario) -> QueueReport:
    """Run every policy over the same arrivals, reading times and studies (common random numbers).

    Studies are drawn with replacement from the pairs of score and truth; reading times depend on neither. Every study
    that arrives is read before its run ends, so that no wait is cut off.

    Args:
        scores: (N,) triage scores, higher for sooner.
        urgent: (N,) 1 or 0, whether each study is truly urgent.
        scenario: The reading room.

    Raises:
        ValueError: There are no studies, the shapes do not fit, a score is NaN, or `urgent` is neither 1 nor 0 (leave
            out studies whose urgency is not known).
    """
    values, truths = np.asarray(scores, dtype=np.float64), np.asarray(urgent, dtype=np.float64)
    if values.ndim != 1 or values.shape != truths.shape or not len(values):
        raise ValueError(f"scores {values.shape} and urgent {truths.shape} must both be of shape (N,), N at least 1")
    if np.isnan(values).any():
        raise ValueError(f"the score of study {np.flatnonzero(np.isnan(values))[0]} is NaN")
    invalid = truths[(truths != 0) & (truths != 1)]
    if invalid.size:
        raise ValueError(f"urgent {invalid[0]} must be 1 or 0: leave out studies whose urgency is not known")

    patience = dict(zip(POLICIES, (-inf, inf, scenario.max_wait_minutes), strict=True))
    generator = np.random.default_rng(scenario.seed)
    drawn: list[NDArray[np.intp]] = []
    waits: dict[str, list[Floats]] = {policy: [] for policy in POLICIES}
    for _ in range(scenario.runs):
        arrivals = _draw_arrivals(scenario, generator)
        reading = _draw_reading_minutes(scenario, len(arrivals), generator)
        studies = generator.integers(len(values), size=len(arrivals))
        drawn.append(studies)
        for policy in POLICIES:
            waits[policy].append(simulate_waits(arrivals, reading, values[studies], scenario.readers, patience[policy]))

    is_urgent = truths[np.concatenate(drawn)] == 1
    groups = {"urgent": is_urgent, "routine": ~is_urgent, "all": np.ones_like(is_urgent)}
    return QueueReport(
        scenario,
        tuple(
            _summarise_waits(policy, group, np.concatenate(waits[policy])[members])
            for policy in POLICIES
            for group, members in groups.items()
        ),
    )


def _draw_arrivals(scenario: Scenario, generator: np.random.Generator) -> Floats:
    """Draw (K,) ascending minutes of a Poisson process: given their number, its events are uniform."""
    count = generator.poisson(scenario.studies_per_hour * scenario.hours)
    return np.sort(generator.random(count)) * scenario.hours * 60


def _draw_reading_minutes(scenario: Scenario, studies: int, generator: np.random.Generator) -> Floats:
    """Draw (K,) log-normal minutes with the scenario's mean and standard deviation."""
    variance = log(1 + (scenario.minutes_sd / scenario.minutes) ** 2)
    return generator.lognormal(log(scenario.minutes) - variance / 2, sqrt(variance), studies)


def simulate_waits(arrivals: Floats, reading: Floats, scores: Floats, readers: int, patience: float) -> Floats:
    """Simulate the (K,) minutes that each study of one run waits, from arrival to opening.

    Args:
        arrivals: (K,) ascending minutes.
        reading: (K,) minutes that a reader needs.
        scores: (K,) higher for sooner.
        readers: Readers at work at the same time.
        patience: Minutes; a study that waited longer goes first, the longest waiting before others. -inf is FIFO; inf
            is by score alone.
    """
    count = len(arrivals)
    # Ranks by score, ties by arrival: one whole number per study makes the cheapest heap.
    by_score = np.argsort(-scores, kind="stable")
    rank = np.empty(count, dtype=np.intp)
    rank[by_score] = np.arange(count)
    arrival_of, reading_of = arrivals.tolist(), reading.tolist()
    rank_of, study_at = rank.tolist(), by_score.tolist()

    free = [0.0] * readers  # when each reader is free again, a heap
    waiting: list[int] = []  # a heap of ranks; studies opened out of turn stay until they come up
    opened = [nan] * count
    is_open = [False] * count
    arrived = oldest = 0
    for _ in range(count):
        while is_open[oldest]:
            oldest += 1
        now = max(free[0], arrival_of[oldest])  # if no study waits, the reader idles until the next arrives
        while arrived < count and arrival_of[arrived] <= now:
            heappush(waiting, rank_of[arrived])
            arrived += 1
        study = oldest
        if not now - arrival_of[oldest] > patience:
            study = study_at[heappop(waiting)]
            while is_open[study]:
                study = study_at[heappop(waiting)]
        is_open[study] = True
        opened[study] = now
        heapreplace(free, now + reading_of[study])
    return np.array(opened) - arrivals


def _summarise_waits(policy: str, group: str, waits: Floats) -> WaitReport:
    if not len(waits):
        return WaitReport(policy, group, 0, nan, nan, nan, nan)
    median, p95 = np.quantile(waits, [0.5, 0.95])
    return WaitReport(policy, group, len(waits), float(waits.mean()), float(median), float(p95), float(waits.max()))
