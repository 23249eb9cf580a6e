"""What is watched of each image for drift (`monitoring.drift`): its pixels, scores and view, and whether it has scores.

Training and the endpoint call these functions, so that a window and its reference hold the same features.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.labels.demographics import AP, PA
from chestai.monitoring.drift import Columns
from chestai.monitoring.ood_detector import OodDetector
from chestai.triage.rule import TriageRule

QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
STRANGENESS, SCORE = "pixels.strangeness", "triage.score"
VIEW, OUTCOME = "view", "outcome"
SCORED, NOT_SCORED = "scored", "not_scored"


def of_pixels(pixels: NDArray[np.uint8], intake: OodDetector | None = None) -> Columns:
    """Input statistics of `uint8` (N, S, S), refused images too.

    Returns:
        `pixels.mean`, `pixels.std`, `pixels.q05`, `.q50`, `.q95` in grey values; `pixels.sharpness`, the mean absolute
        Laplacian, which noise raises and blur lowers; with an intake `pixels.strangeness`, its score. float64 (N,).
    """
    counts = np.array([np.bincount(one.ravel(), minlength=256) for one in pixels]).reshape(-1, 256)
    shares = counts / max(1, pixels[:1].size)
    levels, upto = np.arange(256.0), shares.cumsum(axis=1)
    mean = shares @ levels
    columns: dict[str, ArrayLike] = {
        "pixels.mean": mean,
        "pixels.std": np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0)),
        **{f"pixels.{name}": (upto < share - 1e-9).sum(axis=1).astype(float) for name, share in QUANTILES.items()},
        "pixels.sharpness": np.array([np.abs(cv2.Laplacian(one, cv2.CV_16S)).mean() for one in pixels]),
    }
    if intake is not None:
        columns[STRANGENESS] = intake.score(pixels)
    return columns


def of_scores(probabilities: ArrayLike, findings: Sequence[str], rule: TriageRule) -> Columns:
    """Calibrated probabilities (N, F): `probability.<finding>`, `triage.score`, `triage.bucket`, N values each."""
    values = np.asarray(probabilities, np.float64)
    scores = rule.score(values, findings)
    return {
        **{f"probability.{finding}": values[:, column] for column, finding in enumerate(findings)},
        SCORE: scores,
        "triage.bucket": list(rule.buckets(scores)),
    }


def of_views(views: Sequence[str | None]) -> Columns:
    """`view`: PA, AP, or not known (None); whatever else a header says is no view here."""
    return {VIEW: [one if one in (PA, AP) else None for one in views]}


def of_outcomes(scored: Sequence[bool]) -> Columns:
    """`outcome`: whether an image that came in has scores, or was refused for whatever reason."""
    return {OUTCOME: [SCORED if one else NOT_SCORED for one in scored]}
