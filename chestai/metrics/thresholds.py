"""Operating points of one finding, and what a threshold gets right and wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.masking import known_mask
from chestai.metrics.ranking import Ranking


@dataclass(frozen=True)
class Confusion:
    """Counts of images at one threshold; a rate over no images is NaN."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def sensitivity(self) -> float:
        """Share of the positives that are called positive."""
        return _share(self.tp, self.fn)

    @property
    def specificity(self) -> float:
        """Share of the negatives that are called negative."""
        return _share(self.tn, self.fp)

    @property
    def ppv(self) -> float:
        """Positive predictive value: share of the images called positive that are."""
        return _share(self.tp, self.fp)

    @property
    def npv(self) -> float:
        """Negative predictive value: share of the images called negative that are."""
        return _share(self.tn, self.fn)

    def to_dict(self) -> dict[str, int | float | None]:
        """Counts and rates, JSON-able; NaN becomes None."""
        rates = {name: getattr(self, name) for name in ("sensitivity", "specificity", "ppv", "npv")}
        counts = {"tp": self.tp, "fp": self.fp, "tn": self.tn, "fn": self.fn}
        return counts | {name: None if np.isnan(rate) else rate for name, rate in rates.items()}


def confusion(targets: ArrayLike, probabilities: ArrayLike, threshold: float) -> Confusion:
    """Count the known images of one finding when `probability >= threshold` is called positive.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64.
        threshold: of the same scale as the probabilities.

    Raises:
        ValueError: the threshold or a probability is NaN, the shapes differ, or a target is neither 0 nor 1.
    """
    if np.isnan(threshold):
        raise ValueError("threshold is NaN: the finding has no operating point")
    _, positive, values = known_mask(targets, probabilities)
    called = values >= threshold
    return Confusion(
        tp=int((called & positive).sum()),
        fp=int((called & ~positive).sum()),
        tn=int((~called & ~positive).sum()),
        fn=int((~called & positive).sum()),
    )


def youden(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """The threshold of the greatest sensitivity + specificity - 1.

    Youden, "Index for rating diagnostic tests", 1950. `probability >= threshold` is called positive.
    Thresholds lie midway between neighbouring probabilities; of equally good ones the lowest, hence the most
    sensitive, wins. Where no threshold beats calling every image positive, it is the lowest probability.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64.

    Returns:
        The threshold; NaN without a known positive or without a known negative.

    Raises:
        ValueError: the shapes differ, a target is neither 0 nor 1 or a probability is NaN.
    """
    called = _Called.of(targets, probabilities)
    if called is None:
        return float("nan")
    # Youden's index x positives x negatives: whole numbers, so that equally good thresholds compare as equal.
    index = called.true_positives * called.negatives - called.false_positives * called.positives
    return called.threshold(_last(index == index.max()))


def best_f1(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """The threshold of the greatest F1, the harmonic mean of sensitivity and positive predictive value.

    Conventions, ties, arguments, NaN and errors as in `youden`.
    """
    called = _Called.of(targets, probabilities)
    if called is None:
        return float("nan")
    # 2 TP / (2 TP + FP + FN): quotients of whole numbers, and equal ones round to the same float.
    f1 = 2 * called.true_positives / (called.true_positives + called.false_positives + called.positives)
    return called.threshold(_last(f1 == f1.max()))


def at_sensitivity(targets: ArrayLike, probabilities: ArrayLike, least: float) -> float:
    """The highest threshold whose sensitivity is at least `least`: the fewest false positives at that price.

    Midpoints, NaN and errors as in `youden`. Where only calling every image positive will do, it is the
    lowest probability.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64.
        least: in (0, 1]; a ValueError otherwise.
    """
    _check_share("sensitivity", least)
    called = _Called.of(targets, probabilities)
    if called is None:
        return float("nan")
    # The quotient itself, as `Confusion.sensitivity` has it: 19 of 20 are 0.95, whatever 0.95 x 20 rounds to.
    return called.threshold(int(np.argmax(called.true_positives / called.positives >= least)))


def at_specificity(targets: ArrayLike, probabilities: ArrayLike, least: float) -> float:
    """The lowest threshold whose specificity is at least `least`: the most positives found at that price.

    Midpoints, NaN and errors as in `youden`. Where even the highest probability is shared by too many
    negatives, no image may be called positive: the threshold is the next float64 above that probability (so above 1 if
    it is 1).

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64.
        least: in (0, 1]; a ValueError otherwise.
    """
    _check_share("specificity", least)
    called = _Called.of(targets, probabilities)
    if called is None:
        return float("nan")
    enough = (called.negatives - called.false_positives) / called.negatives >= least
    return called.threshold(_last(enough) if enough.any() else -1)


@dataclass(frozen=True)
class _Called:
    """What is called positive by each threshold, from the highest down: one a distinct score.

    scores: (G,) distinct, descending. true_positives, false_positives: (G,) of the images down to each score.
    positives, negatives: of all, 1 or more.
    """

    scores: NDArray[np.float64]
    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]
    positives: float
    negatives: float

    @classmethod
    def of(cls, targets: ArrayLike, probabilities: ArrayLike) -> "_Called | None":
        """None without a positive or without a negative: such data choose no threshold."""
        ranking = Ranking.of(targets, probabilities)
        (true_positives,), (false_positives,) = ranking.counts(np.ones((1, np.size(probabilities))))
        positives, negatives = float(true_positives[-1]), float(false_positives[-1])
        if positives == 0 or negatives == 0:
            return None
        return cls(ranking.scores, true_positives[1:], false_positives[1:], positives, negatives)

    def threshold(self, index: int) -> float:
        """What calls the images down to the score of this index positive; -1 calls none."""
        if index == -1:
            return float(np.nextafter(self.scores[0], np.inf))
        upper = self.scores[index]
        if index == len(self.scores) - 1:
            return float(upper)
        lower = self.scores[index + 1]
        middle = lower + (upper - lower) / 2
        # Between adjacent floats the midpoint rounds, and rounding down would call `lower` positive too.
        return float(middle if middle > lower else upper)


def _last(chosen: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(chosen)[-1])


def _check_share(rate: str, least: float) -> None:
    if not 0 < least <= 1:
        raise ValueError(f"{rate} {least} must be above 0 and at most 1")


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else float("nan")
