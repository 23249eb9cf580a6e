"""What val says about a probability: confidence bands and conformal label sets of every finding.

Fitted where the calibration is fitted, on the same images, and stored beside it in the bundle.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.calibration.bands import Band, FindingBands, fit_bands
from chestai.calibration.conformal import ALPHA, LabelThresholds, fit_thresholds
from chestai.metrics.masking import Floats
from chestai.metrics.predictions import Predictions

FORMAT = 1


class BandArrays(NamedTuple):
    """The bands of (N, F) probabilities.

    Attributes:
        low, high: float64 (N, F); NaN where no band holds the probability.
        n: int64 (N, F), val images of the band; 0 where there is none.
    """

    low: Floats
    high: Floats
    n: NDArray[np.int64]


class LabelSets(NamedTuple):
    """Bool (N, F) each: whether the label set holds "present", and "absent"; it may hold both or neither."""

    present: NDArray[np.bool_]
    absent: NDArray[np.bool_]


@dataclass(frozen=True)
class Confidence:
    """Bands and label sets of F findings, which are called by a bundle's order or by name.

    Attributes:
        alpha: The error rate of the label sets.
    """

    findings: tuple[str, ...]
    bands: tuple[FindingBands, ...]
    thresholds: tuple[LabelThresholds, ...]
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if not len(self.findings) == len(self.bands) == len(self.thresholds):
            raise ValueError("bands and thresholds must have one entry for each finding")

    def confidence(self, finding: str, probability: float) -> Band | None:
        """The band that holds a probability; None if the finding has none or val has no image with a like score.

        Raises:
            ValueError: There is no such finding.
        """
        found = self.bands[self.findings.index(finding)]
        return next((found.bands[place] for place in np.flatnonzero(found.find(np.array([probability])))), None)

    def bands_of(self, probabilities: ArrayLike) -> BandArrays:
        """Look up the bands of (N, F) probabilities in [0, 1].

        Raises:
            ValueError: They are not of shape (N, F).
        """
        values = self._check_shape(probabilities)
        edges, low, high, n = self._tables
        # Starts and ends at or below a probability: an odd number within a band, an even one between and beyond them.
        cells = np.arange(len(self.findings)), (values[:, :, None] >= edges).sum(axis=2)
        return BandArrays(low[cells], high[cells], n[cells])

    def label_sets(self, probabilities: ArrayLike) -> LabelSets:
        """Build the label sets of (N, F) probabilities in [0, 1].

        Raises:
            ValueError: They are not of shape (N, F).
        """
        values = self._check_shape(probabilities)
        present, absent = np.array([(each.present, each.absent) for each in self.thresholds]).reshape(-1, 2).T
        return LabelSets(values >= present, values <= absent)

    def shift_log_odds(self, shifts: Sequence[float]) -> Self:
        """Return a copy for probabilities with (F,) finite values added to the findings' log odds.

        Bands then hold for images weighted to the prevalence that the shifts lead to.
        """
        pairs = list(zip(self.bands, self.thresholds, shifts, strict=True))
        bands = tuple(bands.shift_log_odds(shift) if shift else bands for bands, _, shift in pairs)
        thresholds = tuple(each.shift_log_odds(shift) if shift else each for _, each, shift in pairs)
        return type(self)(self.findings, bands, thresholds, self.alpha)

    def to_json(self) -> str:
        """As text."""
        rows = zip(self.findings, self.bands, self.thresholds, strict=True)
        values = {finding: {**bands.to_dict(), **each.to_dict()} for finding, bands, each in rows}
        return json.dumps({"format": FORMAT, "alpha": self.alpha, "findings": values})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text of `to_json`.

        Raises:
            ValueError: It is no such text.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"no confidence of format {FORMAT}")
        try:
            findings: dict[str, dict[str, Any]] = values["findings"]
            bands = tuple(FindingBands.from_dict(each) for each in findings.values())
            thresholds = tuple(LabelThresholds(each["present"], each["absent"]) for each in findings.values())
            return cls(tuple(findings), bands, thresholds, float(values["alpha"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no confidence: {error!r}") from error

    def _check_shape(self, probabilities: ArrayLike) -> Floats:
        values = np.asarray(probabilities, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.findings):
            raise ValueError(f"probabilities {values.shape} must be of shape (N, {len(self.findings)})")
        return values

    @cached_property
    def _tables(self) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
        """Starts and ends (F, 2 B) of B bands, and low, high, n (F, 2 B + 1) before, between and beyond them."""
        longest = max((len(each.bands) for each in self.bands), default=0)
        edges = np.full((len(self.bands), 2 * longest), np.inf)
        low, high = (np.full((len(self.bands), 2 * longest + 1), np.nan) for _ in range(2))
        n = np.zeros((len(self.bands), 2 * longest + 1), np.int64)
        for row, each in enumerate(self.bands):
            for place, band in enumerate(each.bands):
                edges[row, 2 * place] = band.start
                edges[row, 2 * place + 1] = band.end if band.end < 1 else np.inf  # the last band may hold 1 too
                cell = row, 2 * place + 1
                low[cell], high[cell], n[cell] = band.low, band.high, band.n
        return edges, low, high, n


def fit_confidence(
    findings: Sequence[str], probabilities: ArrayLike, targets: ArrayLike, patients: ArrayLike
) -> Confidence:
    """Fit bands and label sets on val.

    Args:
        findings: F names.
        probabilities: (N, F) calibrated, in [0, 1].
        targets: (N, F) 1, 0, or NaN for not known.
        patients: (N,) ids of any one sortable type.

    Raises:
        ValueError: The shapes do not fit, a target is neither 0 nor 1, or a known target's probability is NaN or
            outside [0, 1].
    """
    known = Predictions.of(targets, probabilities, patients, findings)
    columns = list(zip(known.probabilities.T, known.targets.T, strict=True))
    return Confidence(
        known.findings,
        tuple(fit_bands(values, truth, known.patients) for values, truth in columns),
        tuple(fit_thresholds(values, truth, known.patients) for values, truth in columns),
    )
