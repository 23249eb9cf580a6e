"""The features of an image that are monitored for drift: pixels, scores, view, and whether it is scored.

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


def of_pixels(pixels: NDArray[np.uint8], detector: OodDetector | None = None) -> Columns:
    """Pixel statistics of uint8 (N, S, S), including rejected images.

    Returns:
        `pixels.mean`, `pixels.std`, `pixels.q05`, `.q50`, `.q95` in grey values; `pixels.sharpness`, the mean absolute
        Laplacian, which noise raises and blur lowers; with a detector `pixels.strangeness`, its score. float64 (N,).
    """
    counts = np.array([np.bincount(image.ravel(), minlength=256) for image in pixels]).reshape(-1, 256)
    shares = counts / max(1, pixels[:1].size)
    levels, cumulative = np.arange(256.0), shares.cumsum(axis=1)
    mean = shares @ levels
    columns: dict[str, ArrayLike] = {
        "pixels.mean": mean,
        "pixels.std": np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0)),
        **{
            f"pixels.{name}": (cumulative < share - 1e-9).sum(axis=1).astype(float) for name, share in QUANTILES.items()
        },
        "pixels.sharpness": np.array([np.abs(cv2.Laplacian(image, cv2.CV_16S)).mean() for image in pixels]),
    }
    if detector is not None:
        columns[STRANGENESS] = detector.score(pixels)
    return columns


def of_scores(probabilities: ArrayLike, findings: Sequence[str], rule: TriageRule) -> Columns:
    """From calibrated probabilities (N, F): `probability.<finding>`, `triage.score`, `triage.bucket`, N values each."""
    values = np.asarray(probabilities, np.float64)
    scores = rule.score(values, findings)
    return {
        **{f"probability.{finding}": values[:, column] for column, finding in enumerate(findings)},
        SCORE: scores,
        "triage.bucket": list(rule.buckets(scores)),
    }


def of_views(views: Sequence[str | None]) -> Columns:
    """`view`: PA, AP or None; any other view counts as not known."""
    return {VIEW: [view if view in (PA, AP) else None for view in views]}


def of_outcomes(scored: Sequence[bool]) -> Columns:
    """`outcome`: whether an image was scored or rejected."""
    return {OUTCOME: [SCORED if is_scored else NOT_SCORED for is_scored in scored]}
