"""Named operating points: chosen on one split (val), judged on another (test)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats, select_known
from chestai.metrics.predictions import Predictions
from chestai.metrics.thresholds import (
    Confusion,
    f1_threshold,
    threshold_at_sensitivity,
    threshold_at_specificity,
    youden_threshold,
)

POINTS = ("youden", "f1", "sensitivity_95", "specificity_95")


@dataclass(frozen=True)
class PointReport:
    """One finding at one operating point; rates in [0, 1] over the images with a known target.

    Without a threshold, `threshold` is NaN, there is no confusion, and all rates are undefined. A rate over no images
    is undefined too, in the point estimate or in a replicate.
    """

    finding: str
    point: str
    threshold: float
    confusion: Confusion | None
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate


def choose_thresholds(targets: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Choose the threshold of each of `POINTS` for one finding; all NaN without a known positive or negative.

    Args:
        targets: (N,) 1, 0, or NaN for not known.
        probabilities: (N,), compared in float64; `probability >= threshold` is called positive.

    Raises:
        ValueError: The shapes differ, a target is neither 0 nor 1, or a probability is NaN.
    """
    return {
        "youden": youden_threshold(targets, probabilities),
        "f1": f1_threshold(targets, probabilities),
        "sensitivity_95": threshold_at_sensitivity(targets, probabilities, 0.95),
        "specificity_95": threshold_at_specificity(targets, probabilities, 0.95),
    }


def measure_operating_points(
    predictions: Predictions, thresholds: Mapping[str, Sequence[float]], bootstrap: Bootstrap
) -> tuple[PointReport, ...]:
    """Measure what each operating point's thresholds get right and wrong.

    The thresholds count as fixed: the intervals reflect the images judged, not those that the thresholds came from.

    Args:
        predictions: `probability >= threshold` is called positive.
        thresholds: Operating point -> F thresholds; NaN for none.

    Returns:
        Finding by finding, the points of each in the order of `thresholds`.

    Raises:
        ValueError: The number of thresholds does not fit, a target is neither 0 nor 1, or a known target has a NaN
            probability.
    """
    truth, scores, findings = predictions.targets, predictions.probabilities, predictions.findings
    for point, values in thresholds.items():
        if len(values) != len(findings):
            raise ValueError(f"{len(values)} thresholds of {point} must be {len(findings)}, one per finding")
    for column in range(len(findings)):
        select_known(truth[:, column], scores[:, column])  # raises on invalid values
    cuts = np.array(list(thresholds.values()), np.float64).reshape(len(thresholds), len(findings))
    counts = _count_outcomes(truth, scores, cuts, bootstrap.weights(predictions.patients))
    return tuple(
        _report_point(finding, point, float(cuts[row, column]), counts[:, :, row, column])
        for column, finding in enumerate(findings)
        for row, point in enumerate(thresholds)
    )


def _count_outcomes(truth: Floats, scores: Floats, cuts: Floats, weights: Iterable[Floats]) -> Floats:
    """(4, B, P, F) weight of true positives, false positives, true negatives, false negatives at cuts (P, F)."""
    called = scores[:, None] >= cuts
    positive, negative = truth[:, None] == 1, truth[:, None] == 0
    cells = np.stack([called & positive, called & negative, ~called & negative, ~called & positive], axis=1)
    # Sums over images for all cells and replicates at once: whole numbers, so exact in any order.
    columns = cells.astype(np.float64)
    return np.concatenate([np.tensordot(rows, columns, axes=1) for rows in weights]).swapaxes(0, 1)


def _report_point(finding: str, point: str, threshold: float, counts: Floats) -> PointReport:
    """Report one finding at one point from its (4, 1 + replicates) counts."""
    if np.isnan(threshold):
        undefined = Estimate(np.nan, np.nan, np.nan)
        return PointReport(finding, point, threshold, None, undefined, undefined, undefined, undefined)
    tp, fp, tn, fn = counts
    return PointReport(
        finding,
        point,
        threshold,
        Confusion(*(int(count) for count in counts[:, 0])),
        sensitivity=_estimate_rate(tp, fn),
        specificity=_estimate_rate(tn, fp),
        ppv=_estimate_rate(tp, fp),
        npv=_estimate_rate(tn, fn),
    )


def _estimate_rate(part: Floats, rest: Floats) -> Estimate:
    with np.errstate(invalid="ignore"):  # 0 / 0, a rate over no images: NaN
        return Estimate.of(part / (part + rest))
