"""The reading queue, checked with queueing theory, a plain simulator and laws that hold on every path."""

from dataclasses import asdict, replace
from math import factorial, inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.metrics.masking import Floats
from chestai.triage.queue_simulation import POLICIES, QueueReport, Scenario, WaitReport, simulate_queue, simulate_waits

ROOM = Scenario(studies_per_hour=20, readers=2, minutes=5, minutes_sd=3, hours=24, runs=20, max_wait_minutes=60, seed=0)


def get_wait(report: QueueReport, policy: str, group: str = "all") -> WaitReport:
    (found,) = [row for row in report.waits if (row.policy, row.group) == (policy, group)]
    return found


def compute_erlang_c_wait(rate: float, service: float, readers: int) -> float:
    """Mean wait of M/M/c under FIFO (Erlang, 1917)."""
    offered = rate * service
    load = offered / readers
    all_busy = offered**readers / factorial(readers) / (1 - load)
    chance = all_busy / (sum(offered**k / factorial(k) for k in range(readers)) + all_busy)
    return chance * service / (readers * (1 - load))


def simulate_waits_plainly(arrivals: Floats, reading: Floats, scores: Floats, readers: int, patience: float) -> Floats:
    """The next free reader opens the best study that has arrived, without heaps or pointers."""
    free, unread, opened = [0.0] * readers, list(range(len(arrivals))), np.empty(len(arrivals))
    while unread:
        reader = free.index(min(free))
        now = max(free[reader], min(arrivals[study] for study in unread))
        arrived = [study for study in unread if arrivals[study] <= now]
        late = [study for study in arrived if now - arrivals[study] > patience]
        best = min(late) if late else max(arrived, key=lambda study: (scores[study], -study))
        opened[best] = now
        free[reader] = now + reading[best]
        unread.remove(best)
    return opened - arrivals


@given(
    seed=st.integers(0, 2**32),
    studies=st.integers(0, 30),
    readers=st.integers(1, 4),
    patience=st.sampled_from([-inf, 0.0, 3.0, 10.0, inf]),
)
def test_every_reading_order_equals_a_plain_simulator(seed: int, studies: int, readers: int, patience: float) -> None:
    generator = np.random.default_rng(seed)
    # Whole numbers: simultaneous arrivals and ends, tied scores, waits of exactly the cap.
    arrivals = np.sort(generator.integers(0, 40, studies)).astype(np.float64)
    reading = generator.integers(1, 9, studies).astype(np.float64)
    scores = generator.integers(0, 5, studies) / 4
    expected = simulate_waits_plainly(arrivals, reading, scores, readers, patience)
    np.testing.assert_array_equal(simulate_waits(arrivals, reading, scores, readers, patience), expected)


@pytest.mark.parametrize(("readers", "load"), [(1, 0.5), (1, 0.8), (3, 0.8), (10, 0.8)])
def test_waits_match_erlang_for_exponential_reading_times(readers: int, load: float) -> None:
    generator = np.random.default_rng(readers)
    studies, service = 200_000, 5.0
    rate = load * readers / service
    arrivals = np.cumsum(generator.exponential(1 / rate, studies))
    waits = simulate_waits(arrivals, generator.exponential(service, studies), np.zeros(studies), readers, -inf)
    assert waits.mean() == pytest.approx(compute_erlang_c_wait(rate, service, readers), rel=0.08)


@pytest.mark.parametrize("deviation", [0.0, 3.0, 5.0])
def test_waits_match_pollaczek_khinchine_for_one_reader(deviation: float) -> None:
    scenario = replace(ROOM, readers=1, studies_per_hour=8.4, minutes_sd=deviation, hours=10_000, runs=2)
    assert scenario.load == pytest.approx(0.7)
    expected = 0.7 * (1 + (deviation / 5) ** 2) / (2 * (1 - 0.7)) * 5
    report = simulate_queue([0.2, 0.9], [0, 1], scenario)
    for policy in ("fifo", "score"):
        # Kleinrock's conservation law: as long as no reader idles, the order does not change the mean.
        assert get_wait(report, policy).mean == pytest.approx(expected, rel=0.06)


def test_waits_match_cobham_for_two_classes() -> None:
    """Non-preemptive priorities in M/G/1 (Cobham, 1954): R / (1 - a), R / ((1 - a)(1 - load)), a the urgent load."""
    scenario = replace(ROOM, readers=1, studies_per_hour=9.6, hours=10_000, runs=2)
    residual = 9.6 / 60 * (5**2 + 3**2) / 2
    urgent_load = 0.8 / 4
    report = simulate_queue([0.9, 0.1, 0.1, 0.1], [1, 0, 0, 0], scenario)
    assert get_wait(report, "score", "urgent").mean == pytest.approx(residual / (1 - urgent_load), rel=0.05)
    expected = residual / ((1 - urgent_load) * (1 - 0.8))
    assert get_wait(report, "score", "routine").mean == pytest.approx(expected, rel=0.08)


def test_equal_reading_times_give_every_order_the_same_mean_wait() -> None:
    generator = np.random.default_rng(1)
    scenario = replace(ROOM, minutes_sd=0, max_wait_minutes=20, studies_per_hour=23)
    report = simulate_queue(generator.random(50), generator.integers(0, 2, 50), scenario)
    means = [get_wait(report, policy).mean for policy in POLICIES]
    # Which study a reader opens does not change when readers are free: opening times are the same in every order.
    assert means == pytest.approx([means[0]] * 3, rel=1e-9)
    assert get_wait(report, "score").maximum > get_wait(report, "fifo").maximum


class TestPolicies:
    def test_perfect_scores_make_urgent_studies_wait_less_and_others_more(self) -> None:
        urgent = np.arange(100) < 15
        report = simulate_queue(urgent * 0.9, urgent, replace(ROOM, studies_per_hour=22))
        for policy in ("score", "score_capped"):
            assert get_wait(report, policy, "urgent").mean < get_wait(report, "fifo", "urgent").mean / 3
            assert get_wait(report, policy, "routine").mean > get_wait(report, "fifo", "routine").mean

    def test_reversed_scores_make_urgent_studies_wait_longest(self) -> None:
        urgent = np.arange(100) < 15
        report = simulate_queue(1 - urgent * 0.9, urgent, replace(ROOM, studies_per_hour=22))
        assert get_wait(report, "score", "urgent").mean > 2 * get_wait(report, "fifo", "urgent").mean

    def test_equal_scores_are_read_in_fifo_order(self) -> None:
        report = simulate_queue([0.5, 0.5], [1, 0], ROOM)
        for group in ("urgent", "routine", "all"):
            rows = [replace(get_wait(report, policy, group), policy="") for policy in POLICIES]
            assert rows[0] == rows[1] == rows[2]

    def test_cap_bounds_the_longest_wait(self) -> None:
        scores = np.random.default_rng(0).random(500)
        report = simulate_queue(scores, scores > 0.8, replace(ROOM, studies_per_hour=22, runs=40, max_wait_minutes=45))
        free, capped = get_wait(report, "score").maximum, get_wait(report, "score_capped").maximum
        assert 45 < capped < free / 3
        assert get_wait(report, "score_capped", "urgent").mean < get_wait(report, "fifo", "urgent").mean

    def test_infinite_cap_is_no_cap_and_zero_cap_is_fifo(self) -> None:
        scores = np.random.default_rng(0).random(500)
        for cap, same in ((inf, "score"), (0.0, "fifo")):
            report = simulate_queue(scores, scores > 0.8, replace(ROOM, max_wait_minutes=cap))
            expected = replace(get_wait(report, same), policy="score_capped")
            assert get_wait(report, "score_capped") == expected


class TestReport:
    def test_all_policies_read_the_same_studies(self) -> None:
        # Twice as many studies as can be read while they arrive.
        scenario = replace(ROOM, studies_per_hour=48, hours=10)
        report = simulate_queue([0.1, 0.9, 0.4], [0, 1, 0], scenario)
        assert [(row.policy, row.group) for row in report.waits] == [
            (policy, group) for policy in POLICIES for group in ("urgent", "routine", "all")
        ]
        for group in ("urgent", "routine", "all"):
            assert len({get_wait(report, policy, group).studies for policy in POLICIES}) == 1
        everyone = get_wait(report, "fifo")
        urgent, routine = get_wait(report, "fifo", "urgent"), get_wait(report, "fifo", "routine")
        assert everyone.studies == urgent.studies + routine.studies
        assert everyone.studies == pytest.approx(48 * 10 * 20, rel=0.05)
        assert urgent.studies == pytest.approx(everyone.studies / 3, rel=0.05)
        # Ten hours of arrivals are twenty hours of work for two readers: the last study waits about ten hours.
        assert everyone.maximum > 9 * 60
        mixed = (urgent.mean * urgent.studies + routine.mean * routine.studies) / everyone.studies
        assert everyone.mean == pytest.approx(mixed)
        for row in report.waits:
            assert 0 <= row.median <= row.p95 <= row.maximum and row.mean <= row.maximum

    def test_seed_determines_the_waits(self) -> None:
        first, again, other = (simulate_queue([0.1, 0.9], [0, 1], replace(ROOM, seed=seed)).waits for seed in (1, 1, 2))
        assert first == again != other

    def test_no_study_waits_with_plenty_of_readers(self) -> None:
        report = simulate_queue([0.1, 0.9], [0, 1], replace(ROOM, readers=100))
        assert {row.maximum for row in report.waits} == {0.0}

    def test_group_without_studies_is_nan(self) -> None:
        report = simulate_queue([0.1], [0], ROOM)
        urgent = get_wait(report, "score", "urgent")
        assert urgent.studies == 0
        assert all(isnan(value) for value in (urgent.mean, urgent.median, urgent.p95, urgent.maximum))
        assert not isnan(get_wait(report, "score", "routine").mean)

    def test_run_without_arrivals_is_nan(self) -> None:
        report = simulate_queue([0.1, 0.9], [0, 1], replace(ROOM, hours=1e-9, runs=1))
        assert all(row.studies == 0 and isnan(row.mean) for row in report.waits)

    def test_load_is_arriving_work_over_capacity(self) -> None:
        assert replace(ROOM, studies_per_hour=12, readers=2, minutes=5).load == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "urgent", "message"),
    [
        ([], [], "N at least 1"),
        ([0.1, 0.2], [1], r"urgent \(1,\)"),
        ([[0.1]], [[1]], r"scores \(1, 1\)"),
        ([0.1, nan], [1, 0], "study 1 is NaN"),
        ([0.1, 0.2], [1, nan], "urgent nan"),
        ([0.1, 0.2], [1, 0.5], r"urgent 0\.5"),
    ],
)
def test_rejects_invalid_studies(scores: list[float], urgent: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_queue(scores, urgent, ROOM)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("studies_per_hour", 0.0),
        ("studies_per_hour", nan),
        ("minutes", 0.0),
        ("minutes", inf),
        ("hours", -1.0),
        ("readers", 0),
        ("runs", 0),
        ("minutes_sd", -1.0),
        ("minutes_sd", nan),
        ("max_wait_minutes", -1.0),
        ("max_wait_minutes", nan),
        ("seed", -1),
    ],
)
def test_rejects_invalid_scenario(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{key} = {value}"):
        Scenario(**{**asdict(ROOM), key: value})
