"""Named operating points: chosen on one split (val), judged on another (test)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.bootstrap import Estimate, point_and_replicates
from chestai.metrics.masking import known_mask
from chestai.metrics.ranking import Floats
from chestai.metrics.thresholds import Confusion, at_sensitivity, at_specificity, best_f1, youden

POINTS = ("youden", "f1", "sensitivity_95", "specificity_95")


@dataclass(frozen=True)
class PointReport:
    """One finding at one operating point; rates in [0, 1] over the images with a known target.

    Where it has no threshold: NaN, no confusion, undefined estimates. A rate over no images is undefined too, in the
    point estimate or in a replicate.
    """

    finding: str
    point: str
    threshold: float
    confusion: Confusion | None
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate


def choose(targets: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """The threshold of each of `POINTS` for one finding; all NaN without a known positive or a known negative.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64; `probability >= threshold` is called positive.

    Raises:
        ValueError: the shapes differ, a target is neither 0 nor 1 or a probability is NaN.
    """
    return {
        "youden": youden(targets, probabilities),
        "f1": best_f1(targets, probabilities),
        "sensitivity_95": at_sensitivity(targets, probabilities, 0.95),
        "specificity_95": at_specificity(targets, probabilities, 0.95),
    }


def at_points(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    findings: Sequence[str],
    thresholds: Mapping[str, Sequence[float]],
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[PointReport, ...]:
    """What each point's thresholds get right and wrong.

    The thresholds are taken as given: intervals tell of the images judged, not of those the thresholds came from.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        probabilities: (N, F), compared in float64.
        patients: (N,) patient ids: the bootstrap draws patients, not images.
        findings: F names, in column order.
        thresholds: by the name of a point, F thresholds; NaN for none.
        resamples: bootstrap replicates; with 0, or fewer than two patients, the intervals are NaN.
        seed: of the bootstrap.

    Returns:
        Finding by finding, in each the points in the order of `thresholds`.

    Raises:
        ValueError: shapes do not fit, a target is neither 0 nor 1, a known target has a NaN probability, or resamples
            is negative.
    """
    truth, scores = np.asarray(targets, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    ids = np.asarray(patients)
    shape = (len(ids), len(findings))
    if truth.shape != shape or scores.shape != shape:
        raise ValueError(f"targets {truth.shape} and probabilities {scores.shape} must be of shape {shape}")
    for point, values in thresholds.items():
        if len(values) != len(findings):
            raise ValueError(f"{len(values)} thresholds of {point} must be {len(findings)}, one a finding")
    for column in range(len(findings)):
        known_mask(truth[:, column], scores[:, column])  # for what it raises
    cuts = np.array([list(values) for values in thresholds.values()], np.float64).reshape(
        len(thresholds), len(findings)
    )
    counts = _counts(truth, scores, cuts, point_and_replicates(ids, resamples, seed))
    return tuple(
        _report(finding, point, float(cuts[row, column]), counts[:, :, row, column])
        for column, finding in enumerate(findings)
        for row, point in enumerate(thresholds)
    )


def _counts(truth: Floats, scores: Floats, cuts: Floats, weights: Iterable[Floats]) -> Floats:
    """(4, B, P, F) weight of true positives, false positives, true negatives, false negatives at cuts (P, F)."""
    called = scores[:, None] >= cuts
    positive, negative = truth[:, None] == 1, truth[:, None] == 0
    cells = np.stack([called & positive, called & negative, ~called & negative, ~called & positive], axis=1)
    # Sums over images for all cells and replicates at once: whole numbers, so exact in any order.
    columns = cells.astype(np.float64)
    return np.concatenate([np.tensordot(rows, columns, axes=1) for rows in weights]).swapaxes(0, 1)


def _report(finding: str, point: str, threshold: float, counts: Floats) -> PointReport:
    """From the (4, 1 + replicates) counts of `_counts` at one cut."""
    if np.isnan(threshold):
        nothing = Estimate(np.nan, np.nan, np.nan)
        return PointReport(finding, point, threshold, None, nothing, nothing, nothing, nothing)
    tp, fp, tn, fn = counts
    return PointReport(
        finding,
        point,
        threshold,
        Confusion(*(int(count) for count in counts[:, 0])),
        sensitivity=_share(tp, fn),
        specificity=_share(tn, fp),
        ppv=_share(tp, fp),
        npv=_share(tn, fn),
    )


def _share(part: Floats, rest: Floats) -> Estimate:
    with np.errstate(invalid="ignore"):  # 0 / 0, a rate over no images: NaN
        return Estimate.of_rows(part / (part + rest))
