"""The order of images in an epoch, the same for any number of workers.

A split is stored in shards of images in random order. Each epoch reads the shards in a new order. A *pool* of
consecutive rows is cut into *lanes*, each lane is shuffled, and each step takes its share of every lane. A worker owns
lanes, so it reads only what it trains on. Lanes do not depend on the number of workers that share them, so the content
of a step does not either.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANES = 8
POOL_BYTES = 192 * 2**20  # of pixels that are shuffled together
POOL_ROWS = 8192  # the limit for small images

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class StepShare:
    """A worker's share of a step: rows `first` to `first + count` of the step's `total`.

    smallest: Rows of the worker that has the fewest.
    """

    step: int
    first: int
    count: int
    total: int
    smallest: int


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch.

    Attributes:
        rows: int64 (E,), rows of the split in reading order; E is the length of the epoch.
        batch_size: Most rows per step, over all workers. The steps of an epoch are of nearly equal size.
        lanes: A divisor of batch_size, and at least the number of workers.
        pool: Rows that are shuffled together, at least batch_size.
        seed: Of the shuffling.
    """

    rows: Rows
    batch_size: int
    lanes: int
    pool: int
    seed: tuple[int, ...]

    @property
    def steps(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @property
    def rounds(self) -> int:
        """Number of pools in the epoch."""
        return -(-self.steps // max(1, self.pool // self.batch_size))

    def steps_of(self, round_index: int) -> range:
        """Return the steps of a round."""
        return range(self.steps * round_index // self.rounds, self.steps * (round_index + 1) // self.rounds)

    def round_of(self, step: int) -> int:
        """Return the round that a step belongs to."""
        return next(index for index in range(self.rounds) if step in self.steps_of(index))

    def piece(self, round_index: int, lane: int) -> Rows:
        """Return the shuffled rows of a lane in a round."""
        low, high = self._bounds(round_index)
        rows = self.rows[low + self._cut(high - low, lane) : low + self._cut(high - low, lane + 1)]
        return np.random.default_rng([*self.seed, round_index, lane]).permutation(rows)

    def lanes_of(self, worker: int, workers: int) -> range:
        """Return the lanes that a worker owns; no worker owns two more than another."""
        return range(self.lanes * worker // workers, self.lanes * (worker + 1) // workers)

    def shares(self, round_index: int, worker: int, workers: int) -> Iterator[tuple[StepShare, list[slice]]]:
        """Yield a worker's share of each step of a round, and where it lies in the pieces of its lanes."""
        low, high = self._bounds(round_index)
        sizes = [self._cut(high - low, lane + 1) - self._cut(high - low, lane) for lane in range(self.lanes)]
        owned, steps = [self.lanes_of(other, workers) for other in range(workers)], self.steps_of(round_index)
        for number, step in enumerate(steps):
            cuts = [slice(size * number // len(steps), size * (number + 1) // len(steps)) for size in sizes]
            counts = [cut.stop - cut.start for cut in cuts]
            by_worker = [sum(counts[lanes.start : lanes.stop]) for lanes in owned]
            yield (
                StepShare(step, sum(by_worker[:worker]), by_worker[worker], sum(by_worker), min(by_worker)),
                cuts[owned[worker].start : owned[worker].stop],
            )

    def _bounds(self, round_index: int) -> tuple[int, int]:
        steps, count = self.steps_of(round_index), len(self.rows)
        return count * steps.start // self.steps, count * steps.stop // self.steps

    def _cut(self, count: int, lane: int) -> int:
        return count * lane // self.lanes


def choose_lanes(batch_size: int, workers: int) -> int:
    """Return the number of lanes: a multiple of `workers` that divides `batch_size`, `LANES` if possible.

    Raises:
        ValueError: The workers cannot share the batch evenly, or would get less than two images each.
    """
    per_worker = batch_size // workers
    if batch_size % workers or (workers > 1 and per_worker < 2):
        raise ValueError(f"{batch_size} images cannot be shared evenly by {workers} workers, two or more each")
    # A lane gives at least two images per step, so that no worker has none in a step that is not full.
    limit = max(1, min(LANES // workers, per_worker // 2))
    return workers * next(lanes for lanes in range(limit, 0, -1) if per_worker % lanes == 0)


def make_epoch_order(
    shards: Sequence[int],
    size: int,
    batch_size: int,
    workers: int,
    seed: int,
    epoch: int,
    repeats: NDArray[np.float32] | None = None,
) -> EpochOrder:
    """Return the order of an epoch over a split.

    Args:
        shards: Rows of each shard.
        size: Pixels per side of the images.
        workers: The most that will share the steps; fewer get the same steps.
        repeats: float32 (N,), how often each row comes on average, at least 1. None: once each.
    """
    starts = np.concatenate([[0], np.cumsum(shards, dtype=np.int64)])
    random = np.random.default_rng([seed, epoch])
    shard_order = random.permutation(len(shards))
    rows = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shard_order] or [np.arange(0)])
    if repeats is not None:
        rows = np.repeat(rows, _round_randomly(repeats, random)[rows])
    pool = max(batch_size, min(POOL_ROWS, POOL_BYTES // size**2))
    return EpochOrder(rows, batch_size, choose_lanes(batch_size, workers), pool, (seed, epoch))


def compute_repeat_factors(targets: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Compute how often to show each image so that rare findings are shown more often: repeat-factor sampling.

    The factor of a finding of prevalence f is max(1, sqrt(share / f)), that of an image the largest of its findings
    (Gupta et al., LVIS, CVPR 2019).

    Args:
        targets: float32 (N, F) of 1, 0, NaN = not known.
        share: Prevalence below which a finding is repeated, 0 to 1.

    Returns:
        float32 (N,), at least 1.
    """
    positives = targets == 1
    prevalence = positives.sum(axis=0) / np.maximum((~np.isnan(targets)).sum(axis=0), 1)
    factors = np.sqrt(np.maximum(share / np.maximum(prevalence, 1e-9), 1.0))
    return np.where(positives, factors, 1.0).max(axis=1, initial=1.0).astype(np.float32)


def _round_randomly(repeats: NDArray[np.float32], random: np.random.Generator) -> Rows:
    """Draw whole numbers whose mean over epochs is `repeats`."""
    whole = np.floor(repeats)
    return (whole + (random.random(len(repeats)) < repeats - whole)).astype(np.int64)
