"""AUROC, average precision and precision, weighted and vectorised over bootstrap replicates.

The point estimate is the replicate in which every image weighs 1, so the same code computes both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.masking import Floats, select_known

# Weights (replicates x images) processed at once: half a MiB of float64 per array, to stay in the CPU's caches.
_CHUNK_SIZE = 1 << 16


def split_replicates(replicates: int, images: int) -> Iterator[slice]:
    """Slice the replicates so that one pass needs bounded memory, whatever their number."""
    step = max(1, _CHUNK_SIZE // max(1, images))
    return (slice(start, min(start + step, replicates)) for start in range(0, replicates, step))


@dataclass(frozen=True)
class Ranking:
    """One finding's images in descending order of score: sorted once, measured under any weights.

    Attributes:
        index: (K,) the images with a known target, highest score first.
        positive: (K,) bool, their targets.
        ends: (G,) the last position of each group of tied scores.
        scores: (G,) float64, the distinct scores, descending.
    """

    index: NDArray[np.intp]
    positive: NDArray[np.bool_]
    ends: NDArray[np.intp]
    scores: Floats

    @classmethod
    def of(cls, targets: ArrayLike, scores: ArrayLike) -> "Ranking":
        """Rank (N,) scores against (N,) targets of 1, 0 or NaN. Raises what `select_known` raises."""
        index, positive, values = select_known(targets, scores)
        order = np.argsort(-values, kind="stable")
        values = values[order]
        is_last = np.ones(len(values), dtype=bool)
        is_last[:-1] = values[:-1] != values[1:]
        ends = np.flatnonzero(is_last)
        return cls(index[order], positive[order], ends, values[ends])

    @classmethod
    def pooled(cls, targets: ArrayLike, scores: ArrayLike) -> "Ranking":
        """Rank all (image, finding) pairs of (N, F) targets and scores together.

        `index` still holds images, once for each known finding, so the weights remain those of images.
        """
        truth, values = np.asarray(targets), np.asarray(scores)
        if truth.ndim != 2 or truth.shape != values.shape:
            raise ValueError(f"targets {truth.shape} and scores {values.shape} must both be of shape (N, F)")
        pairs = cls.of(truth.ravel(), values.ravel())
        return replace(pairs, index=pairs.index // max(1, truth.shape[1]))

    def count_positives(self, weights: Floats) -> tuple[Floats, Floats]:
        """Sum the weights of true and of false positives if the images down to each distinct score are called positive.

        Args:
            weights: (B, N) float64, not negative.

        Returns:
            Two (B, G + 1) float64 arrays; the first column is 0 (none called), the last holds the totals.
        """
        ordered = np.take(weights, self.index, axis=1)
        return self._sum_to_ends(ordered * self.positive), self._sum_to_ends(ordered * ~self.positive)

    def _sum_to_ends(self, ordered: Floats) -> Floats:
        totals = np.zeros((len(ordered), len(self.ends) + 1))
        totals[:, 1:] = np.take(np.cumsum(ordered, axis=1), self.ends, axis=1)
        return totals


def measure_rankings(
    areas: Sequence[Callable[[Floats, Floats], Floats]], rankings: Sequence[Ranking], weights: Floats
) -> Floats:
    """Compute areas (`area_under_roc`, ...) of each ranking under each row of weights.

    Args:
        areas: A functions of the counts of `Ranking.count_positives`.
        rankings: R rankings of the same N images.
        weights: (B, N) float64, not negative.

    Returns:
        (A, B, R) float64; NaN where undefined.
    """
    values = np.empty((len(areas), len(weights), len(rankings)))
    for column, ranking in enumerate(rankings):
        counts = ranking.count_positives(weights)
        for row, area in enumerate(areas):
            values[row, :, column] = area(*counts)
    return values


def mean_of_defined(values: Floats) -> Floats:
    """Average (..., F) over the findings that are defined, such as those of each replicate; NaN where none is."""
    count = (~np.isnan(values)).sum(axis=-1)
    total = np.nansum(values, axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def area_under_roc(true_positives: Floats, false_positives: Floats) -> Floats:
    """Compute (B,) AUROC from counts of a `Ranking`; a tied pair counts one half (midranks, as Mann-Whitney's U)."""
    doubled = np.sum(np.diff(false_positives) * (true_positives[:, 1:] + true_positives[:, :-1]), axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 without positives or without negatives: NaN
        return doubled / (2 * true_positives[:, -1] * false_positives[:, -1])


def area_under_precision_recall(true_positives: Floats, false_positives: Floats) -> Floats:
    """Compute (B,) average precision from counts of a `Ranking`: sum of precision x recall gained, not interpolated.

    It is NaN without negatives, where it would be 1 for any scores, so that it is defined exactly where AUROC is.
    """
    gained, called = np.diff(true_positives), (true_positives + false_positives)[:, 1:]
    # Where nothing has weight yet, nothing is gained either, so any divisor gives 0.
    summed = np.sum(gained * true_positives[:, 1:] / np.where(called > 0, called, 1), axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 without positives: NaN
        return np.where(false_positives[:, -1] > 0, summed / true_positives[:, -1], np.nan)


def precision_of_first(true_positives: Floats, false_positives: Floats, first: int) -> Floats:
    """Compute (B,) shares of positives among the first images, from counts of a `Ranking`; NaN without positives.

    Of a group of tied images that is only partly among them, the expected number of positives counts.
    """
    called = true_positives + false_positives
    found = np.minimum(called[:, -1], first)
    positives = np.array([np.interp(*row) for row in zip(found, called, true_positives, strict=True)])
    return np.divide(positives, found, out=np.full(len(found), np.nan), where=true_positives[:, -1] > 0)


@overload
def auroc(targets: ArrayLike, scores: ArrayLike) -> float: ...
@overload
def auroc(targets: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> Floats: ...
def auroc(targets: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | Floats:
    """Area under the receiver operating characteristic of one finding, exact under ties.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        scores: (N,) logits or probabilities, higher for more likely.
        weights: (B, N) not negative, one row per replicate; None weighs each image 1.

    Returns:
        (B,) float64 or, without weights, a float, in [0, 1]; NaN where no positive or no negative has weight.

    Raises:
        ValueError: The shapes do not fit, a target is neither 0 nor 1, a score is NaN, or a weight is negative.
    """
    return _compute_area(area_under_roc, targets, scores, weights)


@overload
def average_precision(targets: ArrayLike, scores: ArrayLike) -> float: ...
@overload
def average_precision(targets: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> Floats: ...
def average_precision(targets: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | Floats:
    """Average precision (AUPRC) of one finding as scikit-learn defines it; arguments, NaN and errors as in `auroc`."""
    return _compute_area(area_under_precision_recall, targets, scores, weights)


def _compute_area(
    area: Callable[[Floats, Floats], Floats], targets: ArrayLike, scores: ArrayLike, weights: ArrayLike | None
) -> float | Floats:
    ranking, images = Ranking.of(targets, scores), np.size(scores)
    if weights is None:
        return float(area(*ranking.count_positives(np.ones((1, images))))[0])
    rows = np.asarray(weights)
    if rows.ndim != 2 or rows.shape[1] != images:
        raise ValueError(f"weights {rows.shape} must be of shape (B, {images})")
    if not (rows >= 0).all():
        raise ValueError("weights must not be negative or NaN")
    result = np.empty(len(rows))
    for chunk in split_replicates(len(rows), images):
        result[chunk] = area(*ranking.count_positives(rows[chunk].astype(np.float64)))
    return result
