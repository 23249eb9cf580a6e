"""Fits the calibration, the confidence and the operating points of a bundle on val."""

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
    patients: NDArray[Any],
    method: str = "platt",
    site: Mapping[str, float] | None = None,
) -> Bundle:
    """Returns the bundle with calibration, confidence and thresholds (Youden's J) fitted on val.

    Args:
        logits: (N, F) of the val images.
        targets: (N, F) of the val images, NaN where not known.
        patients: (N,) ids of their patients, of any one sortable type.
        method: One of `chestai.calibration.METHODS`.
        site: Finding -> prevalence where the model will be used; calibration and confidence are moved to it.
    """
    card = bundle.card
    fitted = calibration.fit(logits, targets, card.provenance["pos_weight"], method)
    confidence = calibration.fit_confidence(card.findings, fitted.apply(logits), targets, patients)
    if site:
        wanted = np.array([site.get(finding, np.nan) for finding in card.findings])
        shifts = calibration.find_shifts(*_match_prevalences(targets, wanted), len(wanted)).tolist()
        fitted, confidence = fitted.shift_log_odds(shifts), confidence.shift_log_odds(shifts)
    probabilities = fitted.apply(logits)
    points = {
        finding: _finite_or_none(youden_threshold(targets[:, column], probabilities[:, column]))
        for column, finding in enumerate(card.findings)
    }
    card = card.model_copy(update={"calibration": fitted.to_dict(), "thresholds": points})
    return replace(bundle, card=card, confidence=confidence)


def shift_to_prevalence(
    fitted: calibration.AnyCalibration, targets: NDArray[Any], site: NDArray[np.float64]
) -> calibration.AnyCalibration:
    """Moves a calibration fitted on val to a site's prevalence.

    Args:
        targets: (N, F) of val, NaN where not known.
        site: (F,) prevalences. A finding whose prevalence is NaN, 0 or 1, at the site or on val, stays as it is.
    """
    return calibration.shift_prevalence(fitted, *_match_prevalences(targets, site))


def _match_prevalences(
    targets: NDArray[Any], site: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F,) prevalences of val and of the site, NaN for the site where either has no finite odds."""
    val, target = mask_infinite_odds(compute_prevalence(targets)), mask_infinite_odds(site)
    return val, np.where(np.isnan(val), np.nan, target)


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
