"""How to choose a threshold for one finding, and what a threshold gets right and wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.masking import Floats
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
        """Positive predictive value: share of the images called positive that are positive."""
        return _share(self.tp, self.fp)

    @property
    def npv(self) -> float:
        """Negative predictive value: share of the images called negative that are negative."""
        return _share(self.tn, self.fn)

    def to_dict(self) -> dict[str, int | float | None]:
        """Counts and rates, JSON-able; NaN becomes None."""
        rates = {name: getattr(self, name) for name in ("sensitivity", "specificity", "ppv", "npv")}
        counts = {"tp": self.tp, "fp": self.fp, "tn": self.tn, "fn": self.fn}
        return counts | {name: None if np.isnan(rate) else rate for name, rate in rates.items()}


def youden_threshold(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Choose the threshold with the greatest sensitivity + specificity - 1.

    Youden, "Index for rating diagnostic tests", 1950. `probability >= threshold` is called positive. Thresholds lie
    midway between neighbouring probabilities. Of equally good ones the lowest wins, which is the most sensitive. If no
    threshold beats calling every image positive, the result is the lowest probability.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64.

    Returns:
        The threshold; NaN without a known positive or without a known negative.

    Raises:
        ValueError: The shapes differ, a target is neither 0 nor 1, or a probability is NaN.
    """
    candidates = _Candidates.of(targets, probabilities)
    if candidates is None:
        return float("nan")
    # Youden's index x positives x negatives: whole numbers, so equally good thresholds compare as equal.
    index = candidates.true_positives * candidates.negatives - candidates.false_positives * candidates.positives
    return candidates.threshold(_last_index(index == index.max()))


def f1_threshold(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """Choose the threshold with the greatest F1, the harmonic mean of sensitivity and positive predictive value.

    Conventions, ties, arguments, NaN and errors are those of `youden_threshold`.
    """
    candidates = _Candidates.of(targets, probabilities)
    if candidates is None:
        return float("nan")
    # 2 TP / (2 TP + FP + FN): equal quotients of whole numbers round to the same float.
    f1 = 2 * candidates.true_positives / (candidates.true_positives + candidates.false_positives + candidates.positives)
    return candidates.threshold(_last_index(f1 == f1.max()))


def threshold_at_sensitivity(targets: ArrayLike, probabilities: ArrayLike, least: float) -> float:
    """Choose the highest threshold whose sensitivity is at least `least`, which has the fewest false positives.

    Midpoints, NaN and errors are those of `youden_threshold`. If only calling every image positive is sensitive enough,
    the result is the lowest probability.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64.
        least: In (0, 1]; a ValueError otherwise.
    """
    _check_share("sensitivity", least)
    candidates = _Candidates.of(targets, probabilities)
    if candidates is None:
        return float("nan")
    # The same quotient as in `Confusion.sensitivity`: 19 of 20 are 0.95, whatever 0.95 x 20 rounds to.
    return candidates.threshold(int(np.argmax(candidates.true_positives / candidates.positives >= least)))


def threshold_at_specificity(targets: ArrayLike, probabilities: ArrayLike, least: float) -> float:
    """Choose the lowest threshold whose specificity is at least `least`, which finds the most positives.

    Midpoints, NaN and errors are those of `youden_threshold`. If too many negatives share even the highest probability,
    no image may be called positive: the result is the next float64 above that probability (above 1 if it is 1).

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64.
        least: In (0, 1]; a ValueError otherwise.
    """
    _check_share("specificity", least)
    candidates = _Candidates.of(targets, probabilities)
    if candidates is None:
        return float("nan")
    enough = (candidates.negatives - candidates.false_positives) / candidates.negatives >= least
    return candidates.threshold(_last_index(enough) if enough.any() else -1)


@dataclass(frozen=True)
class _Candidates:
    """The candidate thresholds, one per distinct score, and what each calls positive.

    Attributes:
        scores: (G,) distinct scores, descending.
        true_positives, false_positives: (G,) among the images down to each score.
        positives, negatives: Among all images, 1 or more.
    """

    scores: Floats
    true_positives: Floats
    false_positives: Floats
    positives: float
    negatives: float

    @classmethod
    def of(cls, targets: ArrayLike, probabilities: ArrayLike) -> "_Candidates | None":
        """Return None without a positive or without a negative: such data define no threshold."""
        ranking = Ranking.of(targets, probabilities)
        (true_positives,), (false_positives,) = ranking.count_positives(np.ones((1, np.size(probabilities))))
        positives, negatives = float(true_positives[-1]), float(false_positives[-1])
        if positives == 0 or negatives == 0:
            return None
        return cls(ranking.scores, true_positives[1:], false_positives[1:], positives, negatives)

    def threshold(self, index: int) -> float:
        """Return the threshold that calls the images down to this score positive; -1 calls none."""
        if index == -1:
            return float(np.nextafter(self.scores[0], np.inf))
        upper = self.scores[index]
        if index == len(self.scores) - 1:
            return float(upper)
        lower = self.scores[index + 1]
        middle = lower + (upper - lower) / 2
        # Between adjacent floats the midpoint rounds, and if it rounded down, `lower` would be called positive too.
        return float(middle if middle > lower else upper)


def _last_index(chosen: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(chosen)[-1])


def _check_share(rate: str, least: float) -> None:
    if not 0 < least <= 1:
        raise ValueError(f"{rate} {least} must be above 0 and at most 1")


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else float("nan")
