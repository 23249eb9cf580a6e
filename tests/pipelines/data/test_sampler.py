"""The order of an epoch: every image once, the same steps for any number of workers, and well mixed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.sampler import EpochOrder, choose_lanes, compute_repeat_factors, make_epoch_order


def read_steps(order: EpochOrder, workers: int, worker: int) -> dict[int, list[int]]:
    """Return the rows of a worker, step by step."""
    lanes = order.lanes_of(worker, workers)
    steps: dict[int, list[int]] = {}
    for index in range(order.rounds):
        pieces = [order.piece(index, lane) for lane in lanes]
        for share, cuts in order.shares(index, worker, workers):
            rows = np.concatenate([piece[cut] for piece, cut in zip(pieces, cuts, strict=True)])
            assert len(rows) == share.count
            steps[share.step] = rows.tolist()
    return steps


@settings(max_examples=150, deadline=None)
@given(
    shards=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    each=st.integers(2, 9),
    workers=st.sampled_from([1, 2, 3, 4, 5, 8, 16]),
    size=st.sampled_from([64, 2048]),
    epoch=st.integers(0, 3),
)
def test_every_row_comes_once_and_every_worker_has_rows(
    shards: list[int], each: int, workers: int, size: int, epoch: int
) -> None:
    batch_size = each * workers
    order = make_epoch_order(shards, size, batch_size, workers, seed=3, epoch=epoch)
    parts = [read_steps(order, workers, worker) for worker in range(workers)]
    rows = [row for part in parts for step_rows in part.values() for row in step_rows]
    assert sorted(rows) == list(range(sum(shards)))
    assert order.steps == -(-sum(shards) // batch_size)
    for part in parts:
        assert sorted(part) == list(range(order.steps))
    sizes = [sum(len(part[step]) for part in parts) for step in range(order.steps)]
    assert max(sizes) <= batch_size
    if sum(shards) >= order.lanes:
        assert min(len(part[step]) for part in parts for step in part) >= 1


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_step_has_the_same_rows_in_order_for_any_number_of_workers(workers: int) -> None:
    alone = read_steps(make_epoch_order([50] * 9, 128, 32, 1, seed=1, epoch=2), 1, 0)
    order = make_epoch_order([50] * 9, 128, 32, workers, seed=1, epoch=2)
    parts = [read_steps(order, workers, worker) for worker in range(workers)]
    for step, rows in alone.items():
        assert [row for part in parts for row in part[step]] == rows


@pytest.mark.parametrize("workers", [3, 5, 6, 7])
def test_fewer_workers_than_the_most_get_the_same_steps(workers: int) -> None:
    order = make_epoch_order([50] * 9, 128, 32, 8, seed=1, epoch=2)
    alone = read_steps(order, 1, 0)
    parts = [read_steps(order, workers, worker) for worker in range(workers)]
    for step, rows in alone.items():
        assert [row for part in parts for row in part[step]] == rows
        assert min(len(part[step]) for part in parts) >= 2
    lanes = [len(order.lanes_of(worker, workers)) for worker in range(workers)]
    assert max(lanes) - min(lanes) == 1


def test_shares_locate_the_rows_of_a_worker_in_the_step() -> None:
    order = make_epoch_order([37], 128, 12, 2, seed=1, epoch=0)
    left = [share for turn in range(order.rounds) for share, _ in order.shares(turn, 0, 2)]
    right = [share for turn in range(order.rounds) for share, _ in order.shares(turn, 1, 2)]
    for first, second in zip(left, right, strict=True):
        assert (first.step, first.total) == (second.step, second.total)
        assert first.first == 0 and second.first == first.count and first.count + second.count == first.total


def test_epochs_differ_and_a_seed_is_reproducible() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        return [
            row
            for rows in read_steps(make_epoch_order([64] * 8, 64, 32, 1, seed, epoch), 1, 0).values()
            for row in rows
        ]

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(1, 1) and first(1, 0) != first(2, 0)


def test_shuffling_mixes_shards_and_rows() -> None:
    """The position of a row in one epoch says nothing about its position or its batch in the next."""
    shard_of = np.repeat(np.arange(64), 64)
    positions, shards = [], []
    for epoch in range(10):
        # 512 px: pools of 512 rows, an eighth of the split
        steps = read_steps(make_epoch_order([64] * 64, 512, 32, 1, 5, epoch), 1, 0)
        positions.append(np.argsort([row for step in sorted(steps) for row in steps[step]]))
        shards.append(np.mean([len(set(shard_of[rows])) for rows in steps.values()]))
    between_epochs = [np.corrcoef(before, after)[0, 1] for before, after in pairwise(positions)]
    with_storage = [np.corrcoef(np.arange(64 * 64), epoch)[0, 1] for epoch in positions]
    # With 64 shards in random order a correlation has a standard deviation of 1/8, the mean of ten of 0.04.
    assert abs(np.mean(between_epochs)) < 0.15 and abs(np.mean(with_storage)) < 0.15
    assert max(map(abs, [*between_epochs, *with_storage])) < 0.5
    assert min(shards) >= 7  # of the eight of a pool


def test_rows_come_as_often_as_their_repeat_factors_say() -> None:
    repeats = np.array([1.0] * 90 + [2.5] * 10, np.float32)
    counts = np.zeros(100)
    for epoch in range(200):
        order = make_epoch_order([25] * 4, 64, 8, 1, 0, epoch, repeats)
        rows = np.bincount([row for mine in read_steps(order, 1, 0).values() for row in mine], minlength=100)
        assert (rows[:90] == 1).all() and set(rows[90:]) <= {2, 3}
        counts += rows
    np.testing.assert_allclose(counts[90:].mean() / 200, 2.5, atol=0.1)


def test_repeat_factors_follow_the_formula() -> None:
    targets = np.zeros((100, 3), np.float32)
    targets[:50, 0] = 1  # common
    targets[0, 1] = 1  # 1 in 100
    targets[1:5, 2], targets[50:, 2] = 1, np.nan  # 4 of 50 known
    factors = compute_repeat_factors(targets, share=0.16)
    assert factors[0] == pytest.approx(4.0)  # sqrt(0.16 / 0.01)
    assert factors[1] == pytest.approx(np.sqrt(2))  # sqrt(0.16 / 0.08)
    assert (factors[5:] == 1).all()


@pytest.mark.parametrize(("batch_size", "workers"), [(32, 3), (2, 2), (7, 2)])
def test_batch_that_workers_cannot_share_is_refused(batch_size: int, workers: int) -> None:
    with pytest.raises(ValueError, match=f"{batch_size} images cannot be shared evenly by {workers} workers"):
        choose_lanes(batch_size, workers)


def test_lanes_do_not_depend_on_a_number_of_workers_that_divides_them() -> None:
    assert [choose_lanes(32, workers) for workers in (1, 2, 4, 8)] == [8, 8, 8, 8]
    assert choose_lanes(256, 16) == 16 and choose_lanes(48, 3) == 6 and choose_lanes(20, 1) == 5
