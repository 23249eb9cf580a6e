"""Targets that are not known, and shares that have no odds."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def select_known(targets: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.bool_], Floats]:
    """Select the images of one finding that have a known target.

    Args:
        targets: (N,) 1, 0, or NaN (or None) for not known.
        scores: (N,) logits or probabilities; compared in float64.

    Returns:
        (K,) their indices, (K,) bool targets and (K,) float64 scores.

    Raises:
        ValueError: The shapes differ or are not (N,), a target is neither 0 nor 1, or a known target has a NaN score.
    """
    all_targets = np.asarray(targets, dtype=np.float64)
    all_scores = np.asarray(scores, dtype=np.float64)
    if all_targets.ndim != 1 or all_targets.shape != all_scores.shape:
        raise ValueError(f"targets {all_targets.shape} and scores {all_scores.shape} must both be of shape (N,)")
    index = np.flatnonzero(~np.isnan(all_targets))
    known_targets, known_scores = all_targets[index], all_scores[index]
    invalid = known_targets[(known_targets != 0) & (known_targets != 1)]
    if invalid.size:
        raise ValueError(f"target {invalid[0]} must be 1, 0 or NaN (not known)")
    if np.isnan(known_scores).any():
        raise ValueError(f"the score of image {index[np.isnan(known_scores)][0]} is NaN")
    return index, known_targets == 1, known_scores


def compute_prevalence(targets: ArrayLike) -> Floats:
    """Return the (F,) share of positives among the known targets (N, F); NaN without any."""
    values = np.asarray(targets, dtype=np.float64)
    count = (~np.isnan(values)).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(len(count), np.nan), where=count > 0)


def mask_infinite_odds(shares: ArrayLike) -> Floats:
    """Return the shares with NaN in place of 0 and 1, which have no finite odds."""
    values = np.asarray(shares, dtype=np.float64)
    return np.where((values > 0) & (values < 1), values, np.nan)
