"""Paired comparisons: several models on the same images, resampled together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats
from chestai.metrics.ranking import Ranking, area_under_roc, mean_of_defined, measure_rankings


@dataclass(frozen=True)
class Comparison:
    """Macro-AUROC of a baseline and of another model on the same images; `difference` is other - baseline.

    The macro-AUROCs are in [0, 1], the difference in [-1, 1]; NaN if no finding has both a positive and a negative.
    """

    baseline: float
    other: float
    difference: Estimate


def compare_auroc(
    targets: ArrayLike,
    baseline: ArrayLike,
    others: Mapping[str, ArrayLike],
    patients: ArrayLike,
    bootstrap: Bootstrap,
) -> dict[str, Comparison]:
    """Compare each of `others` with the baseline, with the same patients drawn for all.

    What makes images hard affects both models and cancels in each replicate's difference. So its interval is narrower
    than two intervals side by side would suggest.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        baseline: (N, F) logits or probabilities, higher for more likely.
        others: Name -> another model's logits or probabilities (N, F).
        patients: (N,) patient ids.
        bootstrap: The settings of `measure_performance` give the same draws here.

    Returns:
        Name -> its comparison. The macro mean of a replicate runs over the findings that are defined in it.

    Raises:
        ValueError: The shapes do not fit, a target is neither 0 nor 1, or a known target has a NaN score.
    """
    truth, ids = np.asarray(targets, dtype=np.float64), np.asarray(patients)
    if truth.ndim != 2 or ids.shape != truth.shape[:1]:
        raise ValueError(f"targets {truth.shape} and patients {ids.shape} must be of shape (N, F) and (N,)")
    models = [_rank("the baseline", truth, baseline), *(_rank(name, truth, scores) for name, scores in others.items())]
    parts = [
        [mean_of_defined(measure_rankings([area_under_roc], rankings, rows)[0]) for rankings in models]
        for rows in bootstrap.weights(ids)
    ]
    first, *rest = np.concatenate(parts, axis=1)  # (1 + replicates,) each
    return {
        name: Comparison(float(first[0]), float(macro[0]), Estimate.of(macro - first))
        for name, macro in zip(others, rest, strict=True)
    }


def _rank(name: str, truth: Floats, scores: ArrayLike) -> list[Ranking]:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != truth.shape:
        raise ValueError(f"scores {values.shape} of {name} must be of the targets' shape {truth.shape}")
    return [Ranking.of(truth[:, column], values[:, column]) for column in range(truth.shape[1])]
