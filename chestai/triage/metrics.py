"""The triage rule as a test of its own: does it put urgent studies on top?

An image is truly urgent when one of the rule's `emergencies` is present in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.bootstrap import Estimate
from chestai.metrics.operating_points import PointReport, at_points
from chestai.metrics.report import evaluate
from chestai.metrics.thresholds import Confusion
from chestai.triage.rule import Bucket, TriageRule

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CutReport:
    """Calling a study urgent from a bucket on: `bucket` is `urgent`, or `soon` for urgent and soon together.

    `cut` is the lowest score that is called. A rate over no images is NaN.
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
    """How a rule's scores and buckets tell urgent studies.

    Attributes:
        findings: those that make a study urgent, the rule's `emergencies`.
        images: those whose truth is known; only they are measured.
        urgent: how many of them are truly urgent.
        auroc: of the score; NaN without urgent or without other images.
        auprc: likewise.
        cuts: of the buckets urgent and soon, in this order.
        counts: urgent, soon, routine -> (truly urgent, not urgent) images.
    """

    findings: tuple[str, ...]
    images: int
    urgent: int
    auroc: Estimate
    auprc: Estimate
    cuts: tuple[CutReport, ...]
    counts: dict[str, tuple[int, int]]


def urgent_truth(targets: ArrayLike, findings: Sequence[str], urgent_findings: Sequence[str]) -> Floats:
    """Which images are truly urgent.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        findings: F names, in column order.
        urgent_findings: those that make an image urgent, all of them among `findings`.

    Returns:
        (N,) float64: 1 where any urgent finding is known to be present; else NaN where any is not known; else 0, so
        0 everywhere if no finding is urgent.

    Raises:
        ValueError: the shape does not fit, an urgent finding is not in `findings`, or its target is neither 0 nor 1.
    """
    values = np.asarray(targets, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(findings):
        raise ValueError(f"targets {values.shape} must have one column for each of {len(findings)} findings")
    for finding in urgent_findings:
        if finding not in findings:
            raise ValueError(f"urgent finding {finding!r} is not one of {', '.join(findings)}")
    relevant = values[:, [findings.index(finding) for finding in urgent_findings]]
    strange = relevant[~(np.isnan(relevant) | np.isin(relevant, [0, 1]))]
    if strange.size:
        raise ValueError(f"target {strange[0]} must be 1, 0 or NaN (not known)")
    present, unknown = (relevant == 1).any(axis=1), np.isnan(relevant).any(axis=1)
    return np.where(present, 1.0, np.where(unknown, np.nan, 0.0))


def measure_urgency(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    findings: Sequence[str],
    rule: TriageRule,
    resamples: int = 1000,
    seed: int = 0,
) -> UrgencyReport:
    """Measure a rule's score and buckets against the truth, with intervals from the patient-clustered bootstrap.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        probabilities: (N, F); those of images whose truth is not known are not looked at.
        patients: (N,) patient ids: the bootstrap draws the patients of the images that are measured.
        findings: F names, in column order; every weighted finding among them.
        rule: what is measured; its `emergencies` are the truth.
        resamples: bootstrap replicates; with 0, or fewer than two patients, the intervals are NaN.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes do not fit, a target is neither 0 nor 1, a weighted finding is not in `findings` or has a
            NaN probability where the truth is known, or resamples is negative.
    """
    rule.check(findings)
    urgent = urgent_truth(targets, findings, rule.emergencies)
    values, ids = np.asarray(probabilities, dtype=np.float64), np.asarray(patients)
    images = len(urgent)
    if values.shape != (images, len(findings)):
        raise ValueError(f"probabilities {values.shape} must be of shape ({images}, {len(findings)})")
    if ids.shape != (images,):
        raise ValueError(f"patients {ids.shape} must be of shape ({images},)")
    is_known = ~np.isnan(urgent)
    urgent, ids = urgent[is_known], ids[is_known]
    scores = rule.score(values[is_known], findings)

    # The score is measured as a finding called "urgent": one column.
    column = (urgent[:, None], scores[:, None], ids, ["urgent"])
    (ranked,) = evaluate(*column, resamples, seed).findings
    cuts = {"urgent": [rule.urgent], "soon": [rule.soon]}
    return UrgencyReport(
        findings=rule.emergencies,
        images=len(urgent),
        urgent=int(urgent.sum()),
        auroc=ranked.auroc,
        auprc=ranked.auprc,
        cuts=tuple(_cut(point) for point in at_points(*column, cuts, resamples, seed)),
        counts=_counts(rule.buckets(scores), urgent == 1),
    )


def _cut(point: PointReport) -> CutReport:
    assert point.confusion is not None  # as it is only where there is no threshold
    return CutReport(
        bucket=point.point,
        cut=point.threshold,
        confusion=point.confusion,
        sensitivity=point.sensitivity,
        specificity=point.specificity,
        ppv=point.ppv,
        npv=point.npv,
    )


def _counts(buckets: Sequence[Bucket], urgent: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Bucket -> (truly urgent, not urgent) images."""
    names = np.array(buckets, dtype=object)
    return {
        bucket: (int((names == bucket)[urgent].sum()), int((names == bucket)[~urgent].sum()))
        for bucket in ("urgent", "soon", "routine")
    }
