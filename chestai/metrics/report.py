"""The performance of a model: AUROC and AUPRC for each finding, macro and micro, with intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from chestai.metrics.bootstrap import CONFIDENCE_LEVEL, Bootstrap, Estimate
from chestai.metrics.predictions import Predictions
from chestai.metrics.ranking import (
    Ranking,
    area_under_precision_recall,
    area_under_roc,
    mean_of_defined,
    measure_rankings,
)


@dataclass(frozen=True)
class FindingReport:
    """The performance on one finding; `positives` and `negatives` count images with a known target."""

    finding: str
    positives: int
    negatives: int
    auroc: Estimate
    auprc: Estimate


@dataclass(frozen=True)
class PerformanceReport:
    """One model on one set of images.

    The macro means run over the `defined` findings: those with a positive and a negative image. The micro values pool
    all known (image, finding) pairs, those of undefined findings too, so common findings count most.
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
                "level": CONFIDENCE_LEVEL,
                "resamples": self.resamples,
                "seed": self.seed,
            },
        }


def measure_performance(predictions: Predictions, bootstrap: Bootstrap) -> PerformanceReport:
    """Measure how well probabilities rank the images, for each finding and overall.

    Raises:
        ValueError: A target is neither 0 nor 1, or a known target has a NaN probability.
    """
    truth, scores, findings = predictions.targets, predictions.probabilities, predictions.findings
    rankings = [Ranking.of(truth[:, column], scores[:, column]) for column in range(len(findings))]
    areas, pooled = [area_under_roc, area_under_precision_recall], Ranking.pooled(truth, scores)
    parts = [
        measure_rankings(areas, [*rankings, pooled], weights) for weights in bootstrap.weights(predictions.patients)
    ]
    aurocs, auprcs = np.concatenate(parts, axis=1)  # (1 + replicates, findings + 1) each: the last column is micro
    rows = tuple(
        FindingReport(
            finding,
            positives=int(ranking.positive.sum()),
            negatives=int((~ranking.positive).sum()),
            auroc=Estimate.of(auroc),
            auprc=Estimate.of(auprc),
        )
        for finding, ranking, auroc, auprc in zip(findings, rankings, aurocs.T[:-1], auprcs.T[:-1], strict=True)
    )
    return PerformanceReport(
        findings=rows,
        macro_auroc=Estimate.of(mean_of_defined(aurocs[:, :-1])),
        macro_auprc=Estimate.of(mean_of_defined(auprcs[:, :-1])),
        micro_auroc=Estimate.of(aurocs[:, -1]),
        micro_auprc=Estimate.of(auprcs[:, -1]),
        defined=sum(row.positives > 0 and row.negatives > 0 for row in rows),
        images=len(truth),
        patients=len(np.unique(predictions.patients)),
        resamples=len(aurocs) - 1,
        seed=bootstrap.seed,
    )
