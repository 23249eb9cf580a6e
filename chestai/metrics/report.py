"""The evaluation of a model: AUROC and AUPRC for each finding and their macro means, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.bootstrap import LEVEL, Estimate, clustered_weights
from chestai.metrics.ranking import Ranking, area_under_precision, area_under_roc


@dataclass(frozen=True)
class FindingReport:
    """How well one finding is told; `positives` and `negatives` are images with a known target."""

    finding: str
    positives: int
    negatives: int
    auroc: Estimate
    auprc: Estimate


@dataclass(frozen=True)
class Report:
    """One model on one set of images.

    The macro means run over the `defined` findings: those with a positive and a negative image.
    """

    findings: tuple[FindingReport, ...]
    macro_auroc: Estimate
    macro_auprc: Estimate
    defined: int
    images: int
    patients: int
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, findings by name; NaN becomes None."""
        return {
            "macro": {
                "auroc": self.macro_auroc.to_dict(),
                "auprc": self.macro_auprc.to_dict(),
                "findings_defined": self.defined,
            },
            "findings": {
                row.finding: {
                    "positives": row.positives,
                    "negatives": row.negatives,
                    "auroc": row.auroc.to_dict(),
                    "auprc": row.auprc.to_dict(),
                }
                for row in self.findings
            },
            "images": self.images,
            "patients": self.patients,
            "interval": {
                "method": "percentile bootstrap clustered by patient",
                "level": LEVEL,
                "resamples": self.resamples,
                "seed": self.seed,
            },
        }


def evaluate(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    findings: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Measure a model's probabilities against the targets.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        probabilities: (N, F), higher for more likely.
        patients: (N,) patient ids: the bootstrap draws patients, not images.
        findings: F names, in column order.
        resamples: bootstrap replicates; with 0, or fewer than two patients, the intervals are NaN.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes do not fit, a target is neither 0 nor 1, or a known target has a NaN probability.
    """
    truth, scores = np.asarray(targets, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    ids = np.asarray(patients)
    shape = (len(ids), len(findings))
    if truth.shape != shape or scores.shape != shape:
        raise ValueError(f"targets {truth.shape} and probabilities {scores.shape} must be of shape {shape}")
    patient_count = len(np.unique(ids))
    # One patient resampled is always itself: an interval of no width would claim certainty.
    replicates = resamples if patient_count > 1 else 0

    rankings = [Ranking.of(truth[:, column], scores[:, column]) for column in range(len(findings))]
    # Row 0 weighs each image 1 and is the point estimate; the bootstrap follows.
    weights = chain([np.ones((1, len(ids)))], clustered_weights(ids, replicates, seed))
    aurocs, auprcs = np.concatenate([_measure_all(rankings, rows) for rows in weights], axis=1)
    rows = tuple(
        FindingReport(
            finding,
            positives=int(ranking.positive.sum()),
            negatives=int((~ranking.positive).sum()),
            auroc=Estimate.of(auroc[0], auroc[1:]),
            auprc=Estimate.of(auprc[0], auprc[1:]),
        )
        for finding, ranking, auroc, auprc in zip(findings, rankings, aurocs.T, auprcs.T, strict=True)
    )
    macro_auroc, macro_auprc = _mean_of_defined(aurocs), _mean_of_defined(auprcs)
    return Report(
        findings=rows,
        macro_auroc=Estimate.of(macro_auroc[0], macro_auroc[1:]),
        macro_auprc=Estimate.of(macro_auprc[0], macro_auprc[1:]),
        defined=sum(row.positives > 0 and row.negatives > 0 for row in rows),
        images=len(ids),
        patients=patient_count,
        resamples=replicates,
        seed=seed,
    )


def _measure_all(rankings: list[Ranking], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, B, F): AUROC and average precision of each replicate and finding."""
    measured = np.empty((2, len(weights), len(rankings)))
    for column, ranking in enumerate(rankings):
        counts = ranking.counts(weights)
        measured[0, :, column] = area_under_roc(*counts)
        measured[1, :, column] = area_under_precision(*counts)
    return measured


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, F) -> (B,) mean over the findings that are defined in each replicate; NaN where none is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
