"""A model measured by labels from elsewhere, beside the corpus's own labels of the same images.

NIH's labels were mined from reports; radiologists read a part of its films again (Majkowska et al., Radiology 2019).
How well a model ranks these films by either shows how much of a figure is the labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.predictions import Predictions
from chestai.metrics.report import FindingReport, measure_performance

# A label of the other source -> findings any of which it may mean: the model's score is the highest of theirs.
UNIONS: dict[str, tuple[str, ...]] = {"Nodule_or_Mass": ("Nodule", "Mass"), "Nodule_Mass": ("Nodule", "Mass")}


@dataclass(frozen=True)
class SecondLabelRow:
    """A finding by both labels, on the images for which both are known.

    theirs, own: The model by either. agreement: Share of the images on which the labels agree.
    """

    finding: str
    images: int
    theirs: FindingReport
    own: FindingReport
    agreement: Estimate


@dataclass(frozen=True)
class SecondLabels:
    """The findings that both sources label. images, patients: those that both have."""

    source: str
    images: int
    patients: int
    rows: tuple[SecondLabelRow, ...]
    not_comparable: tuple[str, ...]


def measure_second_labels(
    source: str,
    theirs: dict[str, NDArray[np.float32]],
    own: Predictions,
    bootstrap: Bootstrap,
) -> SecondLabels:
    """Measures a model by two sources of labels.

    Args:
        source: The other source's name.
        theirs: Finding -> its labels (N,), 1, 0 or NaN.
        own: The model's probabilities and the corpus's own labels of the same N images.
    """
    rows, left_out = [], []
    for finding, labels in theirs.items():
        parts = UNIONS.get(finding, (finding,))
        columns = [own.findings.index(part) for part in parts if part in own.findings]
        if len(columns) < len(parts):
            left_out.append(finding)
            continue
        scores, mined = own.probabilities[:, columns].max(axis=1), _any_of(own.targets[:, columns])
        known = ~np.isnan(labels) & ~np.isnan(mined)
        rows.append(_measure_row(finding, labels[known], mined[known], scores[known], own.patients[known], bootstrap))
    patients = len(np.unique(own.patients))
    return SecondLabels(source, len(own.targets), patients, tuple(rows), tuple(left_out))


def _measure_row(
    finding: str,
    theirs: NDArray[np.float32],
    mined: NDArray[np.float64],
    scores: NDArray[np.float64],
    patients: NDArray[np.generic],
    bootstrap: Bootstrap,
) -> SecondLabelRow:
    by_theirs, by_mined = (_measure(finding, labels, scores, patients, bootstrap) for labels in (theirs, mined))
    agree = (theirs == mined).astype(np.float64)
    shares = [weights @ agree / weights.sum(axis=1) for weights in bootstrap.weights(patients)] if len(agree) else []
    agreement = Estimate.of(np.concatenate(shares)) if shares else Estimate(np.nan, np.nan, np.nan)
    return SecondLabelRow(finding, len(scores), by_theirs, by_mined, agreement)


def _measure(
    finding: str, labels: ArrayLike, scores: NDArray[np.float64], patients: ArrayLike, bootstrap: Bootstrap
) -> FindingReport:
    targets = np.asarray(labels, np.float64)[:, None]
    (row,) = measure_performance(Predictions.of(targets, scores[:, None], patients, [finding]), bootstrap).findings
    return row


def _any_of(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where any of the labels (N, k) is 1, 0 where all are 0, else NaN."""
    return np.where((targets == 1).any(axis=1), 1.0, np.where((targets == 0).all(axis=1), 0.0, np.nan))
