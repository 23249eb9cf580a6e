"""Which image comes when: the order of an epoch, the same for any number of workers.

A split is stored in shards of images in random order. Each epoch reads the shards in a new order; a *pool* of rows read
one after another is cut into *lanes*, each lane is mixed, and each step takes its share of every lane. A worker owns
lanes, so it reads only what it trains on; and as lanes do not depend on the number of workers (where that divides
them), neither does what is in a step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANES = 8
POOL_BYTES = 192 * 2**20  # of pixels, mixed among themselves
POOL_ROWS = 8192  # and no more than this of small ones

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class StepShare:
    """What a worker has of a step: rows `first` to `first + count` of the step's `total`.

    least: rows of the worker that has the fewest.
    """

    step: int
    first: int
    count: int
    total: int
    least: int


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch.

    Attributes:
        rows: int64 (E,), rows of the split as they are read; E is the length of the epoch.
        batch_size: most rows a step, over all workers. Steps of an epoch are of nearly equal size.
        lanes: a divisor of batch_size, and a multiple of the number of workers.
        pool: rows mixed among themselves, at least batch_size.
        seed: of the mixing.
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
        """Pools in the epoch."""
        return -(-self.steps // max(1, self.pool // self.batch_size))

    def steps_of(self, turn: int) -> range:
        """The steps of a round."""
        return range(self.steps * turn // self.rounds, self.steps * (turn + 1) // self.rounds)

    def round_of(self, step: int) -> int:
        """The round that a step belongs to."""
        return next(turn for turn in range(self.rounds) if step in self.steps_of(turn))

    def piece(self, turn: int, lane: int) -> Rows:
        """The rows of a lane in a round, mixed."""
        low, high = self._bounds(turn)
        mine = self.rows[low + self._cut(high - low, lane) : low + self._cut(high - low, lane + 1)]
        return np.random.default_rng([*self.seed, turn, lane]).permutation(mine)

    def shares(self, turn: int, lanes: range) -> Iterator[tuple[StepShare, list[slice]]]:
        """For each step of a round, a worker's share and where it lies in the pieces of its lanes."""
        low, high = self._bounds(turn)
        sizes = [self._cut(high - low, lane + 1) - self._cut(high - low, lane) for lane in range(self.lanes)]
        steps = self.steps_of(turn)
        for number, step in enumerate(steps):
            cuts = [slice(size * number // len(steps), size * (number + 1) // len(steps)) for size in sizes]
            counts = [cut.stop - cut.start for cut in cuts]
            each = [sum(counts[at : at + len(lanes)]) for at in range(0, self.lanes, len(lanes))]
            mine = lanes.start // len(lanes)
            yield StepShare(step, sum(each[:mine]), each[mine], sum(each), min(each)), cuts[lanes.start : lanes.stop]

    def _bounds(self, turn: int) -> tuple[int, int]:
        steps, count = self.steps_of(turn), len(self.rows)
        return count * steps.start // self.steps, count * steps.stop // self.steps

    def _cut(self, count: int, lane: int) -> int:
        return count * lane // self.lanes


def lanes_for(batch_size: int, workers: int) -> int:
    """The number of lanes: a multiple of `workers` that divides `batch_size`, `LANES` where that is possible.

    Raises:
        ValueError: the workers cannot share the batch evenly, or get less than two images each.
    """
    each = batch_size // workers
    if batch_size % workers or (workers > 1 and each < 2):
        raise ValueError(f"{batch_size} images cannot be shared evenly by {workers} workers, two or more each")
    # A lane gives at least two images a step, lest a worker has none in a step that is not full.
    most = max(1, min(LANES // workers, each // 2))
    return workers * next(lanes for lanes in range(most, 0, -1) if each % lanes == 0)


def epoch_order(
    shards: Sequence[int],
    size: int,
    batch_size: int,
    workers: int,
    seed: int,
    epoch: int,
    repeats: NDArray[np.float32] | None = None,
) -> EpochOrder:
    """The order of an epoch over a split stored in `shards` (rows of each) of images of `size` pixels a side.

    Args:
        repeats: float32 (N,), how often each row comes on average, at least once; None: once each.
    """
    starts = np.concatenate([[0], np.cumsum(shards, dtype=np.int64)])
    random = np.random.default_rng([seed, epoch])
    turns = random.permutation(len(shards))
    rows = np.concatenate([np.arange(starts[one], starts[one + 1]) for one in turns] or [np.arange(0)])
    if repeats is not None:
        rows = np.repeat(rows, _times(repeats, random)[rows])
    pool = max(batch_size, min(POOL_ROWS, POOL_BYTES // size**2))
    return EpochOrder(rows, batch_size, lanes_for(batch_size, workers), pool, (seed, epoch))


def repeat_factors(targets: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """How often to show each image so that rare findings are seen more: repeat-factor sampling.

    A finding of prevalence f is wanted max(1, sqrt(share / f)) times, an image as often as its rarest finding (Gupta et
    al., LVIS, CVPR 2019).

    Args:
        targets: float32 (N, F) of 1, 0, NaN.
        share: prevalence below which a finding is repeated, 0 to 1.

    Returns:
        float32 (N,), at least 1.
    """
    positives = targets == 1
    prevalence = positives.sum(axis=0) / np.maximum((~np.isnan(targets)).sum(axis=0), 1)
    wanted = np.sqrt(np.maximum(share / np.maximum(prevalence, 1e-9), 1.0))
    return np.where(positives, wanted, 1.0).max(axis=1, initial=1.0).astype(np.float32)


def _times(repeats: NDArray[np.float32], random: np.random.Generator) -> Rows:
    """Whole numbers whose mean over epochs is `repeats`."""
    whole = np.floor(repeats)
    return (whole + (random.random(len(repeats)) < repeats - whole)).astype(np.int64)
