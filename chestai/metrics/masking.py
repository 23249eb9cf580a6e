"""What is known: which images have a known target, and how many of those are positive."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def known_mask(
    targets: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.float64]]:
    """The images of one finding whose target is known.

    Args:
        targets: (N,) 1, 0, or NaN (or None) for not known.
        scores: (N,) logits or probabilities; compared in float64.

    Returns:
        (K,) their indices, (K,) bool targets and (K,) float64 scores.

    Raises:
        ValueError: the shapes differ or are not (N,), a target is neither 0 nor 1, or a known target has a
            NaN score.
    """
    all_targets = np.asarray(targets, dtype=np.float64)
    all_scores = np.asarray(scores, dtype=np.float64)
    if all_targets.ndim != 1 or all_targets.shape != all_scores.shape:
        raise ValueError(f"targets {all_targets.shape} and scores {all_scores.shape} must both be of shape (N,)")
    index = np.flatnonzero(~np.isnan(all_targets))
    known_targets, known_scores = all_targets[index], all_scores[index]
    strange = known_targets[(known_targets != 0) & (known_targets != 1)]
    if strange.size:
        raise ValueError(f"target {strange[0]} must be 1, 0 or NaN (not known)")
    if np.isnan(known_scores).any():
        raise ValueError(f"the score of image {index[np.isnan(known_scores)][0]} is NaN")
    return index, known_targets == 1, known_scores


def prevalence(targets: ArrayLike) -> NDArray[np.float64]:
    """(F,) share of positives among the known targets (N, F); NaN without any."""
    values = np.asarray(targets, dtype=np.float64)
    count = (~np.isnan(values)).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(len(count), np.nan), where=count > 0)


def findings_with_both_classes(shares: ArrayLike) -> NDArray[np.float64]:
    """Shares of which those that have no finite odds, 0 and 1, are NaN."""
    values = np.asarray(shares, dtype=np.float64)
    return np.where((values > 0) & (values < 1), values, np.nan)
