"""Paired comparisons: two answers over the same images, resampled together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.bootstrap import Estimate, point_and_replicates
from chestai.metrics.ranking import Floats, Ranking, area_under_roc, mean_of_defined, measured


@dataclass(frozen=True)
class Comparison:
    """Macro-AUROC of a baseline and of another answer over the same images; `difference` is other - baseline.

    All in [0, 1], the difference in [-1, 1]; NaN where no finding has both a positive and a negative image.
    """

    baseline: float
    other: float
    difference: Estimate


def compare(
    targets: ArrayLike,
    baseline: ArrayLike,
    others: Mapping[str, ArrayLike],
    patients: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Each of `others` against the baseline, the same patients drawn for both.

    What makes images hard is shared by both answers and cancels in each replicate's difference, so its interval is
    narrower than two intervals side by side would suggest.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        baseline: (N, F) logits or probabilities, higher for more likely.
        others: by name, the same of other answers.
        patients: (N,) patient ids: the bootstrap draws patients, not images.
        resamples: bootstrap replicates; with 0, or fewer than two patients, the intervals are NaN.
        seed: of the bootstrap; the same as in `report.evaluate` gives the same draws.

    Returns:
        By the name of the other. The macro mean of a replicate runs over the findings defined in it.

    Raises:
        ValueError: shapes do not fit, a target is neither 0 nor 1, a known target has a NaN score, or resamples is
            negative.
    """
    truth, ids = np.asarray(targets, dtype=np.float64), np.asarray(patients)
    if truth.ndim != 2 or ids.shape != truth.shape[:1]:
        raise ValueError(f"targets {truth.shape} and patients {ids.shape} must be of shape (N, F) and (N,)")
    reference = _rankings("the baseline", truth, baseline)
    answers = [_rankings(name, truth, answer) for name, answer in others.items()]
    parts = [
        [mean_of_defined(measured([area_under_roc], rankings, rows)[0]) for rankings in (reference, *answers)]
        for rows in point_and_replicates(ids, resamples, seed)
    ]
    first, *rest = np.concatenate(parts, axis=1)  # (1 + replicates,) each
    return {
        name: Comparison(float(first[0]), float(macro[0]), Estimate.of_rows(macro - first))
        for name, macro in zip(others, rest, strict=True)
    }


def _rankings(name: str, truth: Floats, answer: ArrayLike) -> list[Ranking]:
    scores = np.asarray(answer, dtype=np.float64)
    if scores.shape != truth.shape:
        raise ValueError(f"scores {scores.shape} of {name} must be of the targets' shape {truth.shape}")
    return [Ranking.of(truth[:, column], scores[:, column]) for column in range(truth.shape[1])]
