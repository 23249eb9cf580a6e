"""The triage rule as a test of its own: does it put urgent studies first?

An image is truly urgent if one of the rule's `emergencies` is present in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats
from chestai.metrics.operating_points import PointReport, measure_operating_points
from chestai.metrics.predictions import Predictions
from chestai.metrics.report import measure_performance
from chestai.metrics.thresholds import Confusion
from chestai.triage.rule import Bucket, TriageRule


@dataclass(frozen=True)
class CutReport:
    """Calling a study urgent from a bucket on; a rate over no images is NaN.

    Attributes:
        bucket: `urgent`, or `soon` for urgent and soon together.
        cut: The lowest score that is called urgent.
    """

    bucket: str
    cut: float
    confusion: Confusion
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True)
class UrgencyReport:
    """How well a rule's scores and buckets find urgent studies.

    Attributes:
        findings: Those that make a study urgent, the rule's `emergencies`.
        images: Images whose urgency is known; only they are measured.
        urgent: How many of them are truly urgent.
        auroc, auprc: Of the score; NaN without urgent or without other images.
        cuts: Of the buckets urgent and soon, in this order.
        counts: Urgent, soon, routine -> (truly urgent, not urgent) images.
    """

    findings: tuple[str, ...]
    images: int
    urgent: int
    auroc: Estimate
    auprc: Estimate
    cuts: tuple[CutReport, ...]
    counts: dict[str, tuple[int, int]]


def derive_urgent_labels(targets: ArrayLike, findings: Sequence[str], urgent_findings: Sequence[str]) -> Floats:
    """Derive which images are truly urgent.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        findings: F names, in column order.
        urgent_findings: Those that make an image urgent, all of them among `findings`.

    Returns:
        (N,) float64: 1 if any urgent finding is known to be present; else NaN if any is not known; else 0. So it is 0
        everywhere if no finding is urgent.

    Raises:
        ValueError: The shape does not fit, an urgent finding is not in `findings`, or its target is neither 0 nor 1.
    """
    values = np.asarray(targets, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(findings):
        raise ValueError(f"targets {values.shape} must have one column for each of {len(findings)} findings")
    for finding in urgent_findings:
        if finding not in findings:
            raise ValueError(f"urgent finding {finding!r} is not one of {', '.join(findings)}")
    relevant = values[:, [findings.index(finding) for finding in urgent_findings]]
    invalid = relevant[~(np.isnan(relevant) | np.isin(relevant, [0, 1]))]
    if invalid.size:
        raise ValueError(f"target {invalid[0]} must be 1, 0 or NaN (not known)")
    present, unknown = (relevant == 1).any(axis=1), np.isnan(relevant).any(axis=1)
    return np.where(present, 1.0, np.where(unknown, np.nan, 0.0))


def measure_urgency(predictions: Predictions, rule: TriageRule, bootstrap: Bootstrap) -> UrgencyReport:
    """Measure a rule's score and buckets against the truth.

    Args:
        predictions: Every weighted finding among its findings. Probabilities of images whose urgency is not known are
            ignored.
        rule: What is measured; its `emergencies` define the truth.
        bootstrap: Draws the patients of the images that are measured.

    Raises:
        ValueError: A target is neither 0 nor 1, or a weighted finding is not among the findings or has a NaN
            probability where the urgency is known.
    """
    findings = predictions.findings
    rule.check_findings(findings)
    urgent = derive_urgent_labels(predictions.targets, findings, rule.emergencies)
    is_known = ~np.isnan(urgent)
    urgent, patients = urgent[is_known], predictions.patients[is_known]
    scores = rule.score(predictions.probabilities[is_known], findings)

    # The score is measured as the probability of one finding called "urgent".
    scored = Predictions.of(urgent[:, None], scores[:, None], patients, ["urgent"])
    (ranked,) = measure_performance(scored, bootstrap).findings
    cuts = {"urgent": [rule.urgent], "soon": [rule.soon]}
    return UrgencyReport(
        findings=rule.emergencies,
        images=len(urgent),
        urgent=int(urgent.sum()),
        auroc=ranked.auroc,
        auprc=ranked.auprc,
        cuts=tuple(_report_cut(point) for point in measure_operating_points(scored, cuts, bootstrap)),
        counts=_count_buckets(rule.buckets(scores), urgent == 1),
    )


def _report_cut(point: PointReport) -> CutReport:
    assert point.confusion is not None  # it is None only without a threshold
    return CutReport(
        bucket=point.point,
        cut=point.threshold,
        confusion=point.confusion,
        sensitivity=point.sensitivity,
        specificity=point.specificity,
        ppv=point.ppv,
        npv=point.npv,
    )


def _count_buckets(buckets: Sequence[Bucket], urgent: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Return bucket -> (truly urgent, not urgent) images."""
    names = np.array(buckets, dtype=object)
    return {
        bucket: (int((names == bucket)[urgent].sum()), int((names == bucket)[~urgent].sum()))
        for bucket in ("urgent", "soon", "routine")
    }
