"""The evaluation of a model: AUROC and AUPRC for each finding, their macro means and micro, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.bootstrap import LEVEL, Estimate, point_and_replicates
from chestai.metrics.ranking import Ranking, area_under_precision, area_under_roc, mean_of_defined, measured


@dataclass(frozen=True)
class FindingReport:
    """How well one finding is told; `positives` and `negatives` are images with a known target."""

    finding: str
    positives: int
    negatives: int
    auroc: Estimate
    auprc: Estimate


@dataclass(frozen=True)
class PerformanceReport:
    """One model on one set of images.

    The macro means run over the `defined` findings: those with a positive and a negative image. The micro values
    pool all known (image, finding) pairs, those of undefined findings too, so common findings count most.
    """

    findings: tuple[FindingReport, ...]
    macro_auroc: Estimate
    macro_auprc: Estimate
    micro_auroc: Estimate
    micro_auprc: Estimate
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
            "micro": {"auroc": self.micro_auroc.to_dict(), "auprc": self.micro_auprc.to_dict()},
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
) -> PerformanceReport:
    """Measure a model's probabilities against the targets.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        probabilities: (N, F), higher for more likely.
        patients: (N,) patient ids: the bootstrap draws patients, not images.
        findings: F names, in column order.
        resamples: bootstrap replicates; with 0, or fewer than two patients, the intervals are NaN.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes do not fit, a target is neither 0 nor 1, a known target has a NaN probability, or
            resamples is negative.
    """
    truth, scores = np.asarray(targets, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    ids = np.asarray(patients)
    shape = (len(ids), len(findings))
    if truth.shape != shape or scores.shape != shape:
        raise ValueError(f"targets {truth.shape} and probabilities {scores.shape} must be of shape {shape}")
    rankings = [Ranking.of(truth[:, column], scores[:, column]) for column in range(len(findings))]
    pooled = Ranking.pooled(truth, scores)
    weights = point_and_replicates(ids, resamples, seed)
    parts = [measured([area_under_roc, area_under_precision], [*rankings, pooled], rows) for rows in weights]
    aurocs, auprcs = np.concatenate(parts, axis=1)  # (1 + replicates, findings + 1) each: the last column is micro
    rows = tuple(
        FindingReport(
            finding,
            positives=int(ranking.positive.sum()),
            negatives=int((~ranking.positive).sum()),
            auroc=Estimate.of_rows(auroc),
            auprc=Estimate.of_rows(auprc),
        )
        for finding, ranking, auroc, auprc in zip(findings, rankings, aurocs.T[:-1], auprcs.T[:-1], strict=True)
    )
    return PerformanceReport(
        findings=rows,
        macro_auroc=Estimate.of_rows(mean_of_defined(aurocs[:, :-1])),
        macro_auprc=Estimate.of_rows(mean_of_defined(auprcs[:, :-1])),
        micro_auroc=Estimate.of_rows(aurocs[:, -1]),
        micro_auprc=Estimate.of_rows(auprcs[:, -1]),
        defined=sum(row.positives > 0 and row.negatives > 0 for row in rows),
        images=len(ids),
        patients=len(np.unique(ids)),
        resamples=len(aurocs) - 1,
        seed=seed,
    )
