"""Operating points of one finding, and what a threshold gets right and wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.known import known
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
    _, positive, values = known(targets, probabilities)
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
    ranking = Ranking.of(targets, probabilities)
    (true_positives,), (false_positives,) = ranking.counts(np.ones((1, np.size(probabilities))))
    positives, negatives = true_positives[-1], false_positives[-1]
    if positives == 0 or negatives == 0:
        return float("nan")
    # Youden's index x positives x negatives: whole numbers, so that equally good thresholds compare as equal.
    index = true_positives[1:] * negatives - false_positives[1:] * positives
    best = int(np.flatnonzero(index == index.max())[-1])
    upper = ranking.scores[best]
    if best == len(index) - 1:
        return float(upper)
    lower = ranking.scores[best + 1]
    middle = lower + (upper - lower) / 2
    # Between adjacent floats the midpoint rounds, and rounding down would call `lower` positive too.
    return float(middle if middle > lower else upper)


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else float("nan")
