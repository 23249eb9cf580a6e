"""Whether the confidence bands and conformal label sets of val hold on another split."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chestai.calibration.bands import FindingBands
from chestai.calibration.confidence import Confidence
from chestai.calibration.conformal import LabelThresholds
from chestai.metrics.bootstrap import Bootstrap, Estimate, estimate_shares
from chestai.metrics.masking import Floats, select_known
from chestai.metrics.predictions import Predictions


@dataclass(frozen=True)
class RangeFrequency:
    """The images of one band's range: their number and the share of them that have the finding."""

    images: int
    observed: Estimate


@dataclass(frozen=True)
class FindingCoverage:
    """One finding, over the images with a known target; shares of no image are undefined.

    Attributes:
        bands: Of val.
        ranges: What was observed in the range of each band.
        outside: Number of images whose probability is in no band.
        thresholds: Of the label sets.
        positives, negatives: Numbers of images.
        present: Share of positives whose set holds "present".
        absent: Share of negatives whose set holds "absent".
        covered: Share of images whose set holds their label.
        single, both, neither: Shares of images whose set holds one label, two or none.
    """

    finding: str
    bands: FindingBands
    ranges: tuple[RangeFrequency, ...]
    outside: int
    thresholds: LabelThresholds
    positives: int
    negatives: int
    present: Estimate
    absent: Estimate
    covered: Estimate
    single: Estimate
    both: Estimate
    neither: Estimate


@dataclass(frozen=True)
class CoverageReport:
    """All findings in column order. alpha: the error rate of the label sets."""

    alpha: float
    findings: tuple[FindingCoverage, ...]


def measure_coverage(predictions: Predictions, confidence: Confidence, bootstrap: Bootstrap) -> CoverageReport:
    """Measure how often bands and label sets hold. They count as fixed: intervals reflect the images judged.

    Raises:
        ValueError: The findings differ, a target is neither 0 nor 1, or a known target has a NaN probability.
    """
    if predictions.findings != confidence.findings:
        raise ValueError("the predictions are of other findings than the confidence")
    sets = confidence.label_sets(predictions.probabilities)
    rows = []
    for column, finding in enumerate(predictions.findings):
        truth = predictions.targets[:, column]
        select_known(truth, predictions.probabilities[:, column])  # raises on invalid values
        bands = confidence.bands[column]
        labels = _list_label_shares(truth, sets.present[:, column], sets.absent[:, column])
        known = ~np.isnan(truth)
        ranges = bands.find(predictions.probabilities[:, column]) & known[:, None]
        hits = np.concatenate([labels[0], np.repeat(truth[:, None] == 1, len(bands.bands), axis=1)], axis=1)
        among = np.concatenate([labels[1], ranges], axis=1)
        estimates = estimate_shares(hits, among, predictions.patients, bootstrap)
        rows.append(
            FindingCoverage(
                finding,
                bands,
                tuple(map(RangeFrequency, ranges.sum(axis=0).tolist(), estimates[6:])),
                int(known.sum() - ranges.sum()),
                confidence.thresholds[column],
                int((truth == 1).sum()),
                int((truth == 0).sum()),
                *estimates[:6],
            )
        )
    return CoverageReport(confidence.alpha, tuple(rows))


def _list_label_shares(
    truth: Floats, present: NDArray[np.bool_], absent: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Hits and whole, (N, 6) each, of the shares of `FindingCoverage` in order."""
    positive, negative = truth == 1, truth == 0
    known = positive | negative
    covered = (positive & present) | (negative & absent)
    hits = [present, absent, covered, present ^ absent, present & absent, ~(present | absent)]
    return np.stack(hits, axis=1), np.stack([positive, negative, known, known, known, known], axis=1)
