"""Fits the calibration and the operating points of a bundle on val."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestai import calibration
from chestai.metrics.masking import compute_prevalence, mask_infinite_odds
from chestai.metrics.thresholds import youden_threshold
from chestai.model.bundle import Bundle


def recalibrate(
    bundle: Bundle,
    logits: NDArray[Any],
    targets: NDArray[Any],
    method: str = "platt",
    site: Mapping[str, float] | None = None,
) -> Bundle:
    """Returns the bundle with calibration and thresholds (Youden's J) fitted on val.

    Args:
        logits: (N, F) of the val images.
        targets: (N, F) of the val images, NaN where not known.
        method: One of `chestai.calibration.METHODS`.
        site: Finding -> prevalence where the model will be used; the calibration is moved to it.
    """
    card = bundle.card
    fitted = calibration.fit(logits, targets, card.provenance["pos_weight"], method)
    if site:
        fitted = shift_to_prevalence(
            fitted, targets, np.array([site.get(finding, np.nan) for finding in card.findings])
        )
    probabilities = fitted.apply(logits)
    points = {
        finding: _finite_or_none(youden_threshold(targets[:, column], probabilities[:, column]))
        for column, finding in enumerate(card.findings)
    }
    return replace(bundle, card=card.model_copy(update={"calibration": fitted.to_dict(), "thresholds": points}))


def shift_to_prevalence(
    fitted: calibration.AnyCalibration, targets: NDArray[Any], site: NDArray[np.float64]
) -> calibration.AnyCalibration:
    """Moves a calibration fitted on val to a site's prevalence.

    Args:
        targets: (N, F) of val, NaN where not known.
        site: (F,) prevalences. A finding whose prevalence is NaN, 0 or 1, at the site or on val, stays as it is.
    """
    val, target = mask_infinite_odds(compute_prevalence(targets)), mask_infinite_odds(site)
    return calibration.shift_prevalence(fitted, val, np.where(np.isnan(val), np.nan, target))


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
