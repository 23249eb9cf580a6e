"""Confidence bands: how often val images that score like an image show a finding.

Scores are cut into ranges of half a unit of log odds. From the highest score down, neighbours are merged until a range
holds `MIN_PATIENTS` patients, but never with one that holds as many by itself, whose frequency would drown theirs. What
is left then is a range too if it holds `FEWEST_PATIENTS`; otherwise it joins the range above it, and has no band at the
top. Only scores and patients decide on the cuts, never labels, so the frequency in a range is an unbiased estimate of
that of the population there (compare Gupta & Ramdas, "Distribution-free calibration guarantees for histogram binning
without sample splitting", ICML 2021). Scores of an isotonic calibration that was fitted on the same images have
followed the labels before: then bands are too wide (docs/evaluation.md).

The interval of that frequency is Wilson's (1927; recommended by Brown, Cai & DasGupta, "Interval estimation for a
binomial proportion", Statistical Science 2001), which holds near 0 too, where a bootstrap of no positive image has no
width. Images of one patient resemble each other and count as fewer: image and positive counts are divided by the design
effect (Rao & Scott, "A simple method for the analysis of clustered binary data", Biometrics 1992). It is 1 + (m - 1) r
for images of patients of mean size m, weighted by size, and an intra-patient correlation r (Kish, "Survey sampling",
1965), or that which the patients' sums show, if larger.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from chestai.calibration.logit import multiply_odds, sigmoid
from chestai.metrics.masking import Floats, select_known

STEP = 0.5  # log odds
OUTERMOST = 16  # steps either way from a probability of 0.5; what lies beyond joins the last
MIN_PATIENTS, FEWEST_PATIENTS = 30, 10
MIN_EVIDENCE = 5.0  # pairs of images of one patient, each weighted by p (1 - p), that a correlation is estimated from
QUANTILE = 1.959963984540054  # of the standard normal distribution, for 95 %


class Band(NamedTuple):
    """What val says about a score of one finding.

    Attributes:
        low, high: 95 % interval of the share of images with the finding, among those of val's population whose score is
            in [start, end).
        n: Number of val images with a known label there.
        observed: Share of them that have the finding.
        patients: Number of their patients.
        start, end: Probabilities.
    """

    low: float
    high: float
    n: int
    observed: float
    patients: int
    start: float
    end: float


@dataclass(frozen=True)
class FindingBands:
    """The bands of one finding, of scores that ascend; none where val has no or too few images.

    Attributes:
        bands: Empty if there are too few patients.
        reason: Why there are none; empty if there are.

    Raises:
        ValueError: Two bands overlap, or a value is out of its range.
    """

    bands: tuple[Band, ...]
    reason: str = ""

    def __post_init__(self) -> None:
        for band in self.bands:
            shares = (band.low, band.observed, band.high)
            if not (0 <= band.start < band.end <= 1 and min(shares) >= 0 and max(shares) <= 1 and band.n > 0):
                raise ValueError(f"a confidence band has values out of range: {tuple(band)}")
        if any(before.end > after.start for before, after in pairwise(self.bands)):
            raise ValueError("confidence bands must not overlap")
        if bool(self.bands) == bool(self.reason):
            raise ValueError("a finding has either confidence bands or a reason for none")

    def find(self, probabilities: Floats) -> NDArray[np.bool_]:
        """Find which of B bands hold which of (N,) probabilities: (N, B), one in a row or none; the end 1 counts."""
        starts, ends = np.array([(band.start, band.end) for band in self.bands]).reshape(-1, 2).T
        values = probabilities[:, None]
        return (values >= starts) & ((values < ends) | ((ends == 1) & (values == 1)))

    def shift_log_odds(self, shift: float) -> Self:
        """Return bands for images weighted by label, so that the log odds of the finding are higher by `shift`."""
        return type(self)(tuple(_shift_band(band, shift) for band in self.bands), self.reason)

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON."""
        columns = {name: [getattr(band, name) for band in self.bands] for name in Band._fields}
        return {**columns, "reason": self.reason}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ValueError: What the constructor raises, or the columns differ in length.
            KeyError: A value is missing.
        """
        columns = [values[name] for name in Band._fields]
        return cls(tuple(Band(*row) for row in zip(*columns, strict=True)), values["reason"])


def fit_bands(probabilities: Floats, targets: Floats, patients: NDArray[Any]) -> FindingBands:
    """Measure the bands of one finding.

    Args:
        probabilities: (N,) in [0, 1].
        targets: (N,) 1, 0, or NaN for not known.
        patients: (N,) ids of any one sortable type.

    Raises:
        ValueError: The shapes differ, a target is neither 0 nor 1, or a known target's probability is NaN or outside
            [0, 1].
    """
    index, positive, values = select_known(targets, probabilities)
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"probability {values[(values < 0) | (values > 1)][0]} must be in [0, 1]")
    steps, ids = _find_steps(values), np.asarray(patients)[index]
    ranges = _merge_steps(steps, ids)
    if not ranges:
        known = len(np.unique(ids))
        reason = f"val has {known} patients with a known label, {FEWEST_PATIENTS} are needed"
        return FindingBands((), reason)
    inside = [(steps >= first) & (steps <= last) for first, last in ranges]
    groups = [_Group.of(ids[each], positive[each]) for each in inside]
    correlation = _estimate_correlation(groups)
    return FindingBands(
        tuple(
            group.measure(correlation, _edge(first), _edge(last + 1))
            for group, (first, last) in zip(groups, ranges, strict=True)
        )
    )


@dataclass(frozen=True)
class _Group:
    """The images of a range.

    Attributes:
        images: Their number.
        observed: Share of positives.
        sizes: (C,) images of each patient.
        excess: (C,) positives of each patient, less the number that `observed` lets expect.
        pairs: Sum over ordered pairs of images of one patient of the product of their excesses.
    """

    images: int
    observed: float
    sizes: Floats
    excess: Floats
    pairs: float

    @classmethod
    def of(cls, patients: NDArray[Any], positive: NDArray[np.bool_]) -> Self:
        """Count (N,) images."""
        patient_of_image = np.unique(patients, return_inverse=True)[1]
        observed = float(positive.mean())
        residuals = positive - observed
        excess = np.bincount(patient_of_image, weights=residuals).astype(np.float64)
        pairs = float((excess**2).sum() - (residuals**2).sum())
        sizes = np.bincount(patient_of_image).astype(np.float64)
        return cls(len(positive), observed, sizes, excess, pairs)

    @property
    def variance(self) -> float:
        """The variance of one label."""
        return self.observed * (1 - self.observed)

    @property
    def evidence(self) -> float:
        """What `pairs` would be if all images of a patient had the same label."""
        return float((self.sizes * (self.sizes - 1)).sum()) * self.variance

    def measure(self, correlation: float, start: float, end: float) -> Band:
        """The band of the range [start, end), by the correlation of images of one patient."""
        effect = 1 + (float((self.sizes**2).sum()) / self.images - 1) * correlation
        if self.variance:
            factor = len(self.sizes) / (len(self.sizes) - 1)
            effect = max(effect, factor * float((self.excess**2).sum()) / (self.images * self.variance))
        low, high = _compute_wilson(self.observed, self.images / effect)
        return Band(low, high, self.images, self.observed, len(self.sizes), start, end)


def _find_steps(probabilities: Floats) -> NDArray[np.int64]:
    """The step of each probability, -OUTERMOST to OUTERMOST - 1; step k begins at log odds k * STEP."""
    edges = sigmoid(STEP * np.arange(1 - OUTERMOST, OUTERMOST, dtype=np.float64))
    return np.searchsorted(edges, probabilities, side="right") - OUTERMOST


def _edge(step: int) -> float:
    """The probability at which a step begins; the outermost ones reach 0 and 1."""
    if abs(step) == OUTERMOST:
        return float(step > 0)
    return float(sigmoid(np.array(STEP * step)))


def _merge_steps(steps: NDArray[np.int64], patients: NDArray[Any]) -> list[tuple[int, int]]:
    """First and last step of each range, ascending."""
    ranges: list[tuple[int, int]] = []
    group, members = list[int](), set[Any]()  # the steps of the range being made, and their patients

    def close() -> None:
        if len(members) >= FEWEST_PATIENTS:
            ranges.append((group[-1], group[0]))
        elif group and ranges:
            ranges[-1] = (group[-1], ranges[-1][1])
        group.clear()
        members.clear()

    for step in np.unique(steps)[::-1].tolist():
        own = {*patients[steps == step].tolist()}
        if len(own) >= MIN_PATIENTS:
            close()
        group.append(step)
        members |= own
        if len(members) >= MIN_PATIENTS:
            close()
    close()
    return ranges[::-1]


def _estimate_correlation(groups: Sequence[_Group]) -> float:
    """The correlation of labels of one patient's images in one range, 0 to 1; 1 if there is little to estimate it from.

    1 counts patients instead of images, which costs little where few patients have several images.
    """
    evidence = sum(group.evidence for group in groups)
    if evidence < MIN_EVIDENCE:
        return 1.0
    return min(max(sum(group.pairs for group in groups) / evidence, 0.0), 1.0)


def _compute_wilson(share: float, images: float) -> tuple[float, float]:
    """Wilson's interval of a share among a number of independent images, which need not be whole."""
    weight = QUANTILE**2 / images
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def _shift_band(band: Band, shift: float) -> Band:
    values = np.array([band.low, band.high, band.observed, band.start, band.end])
    low, high, observed, start, end = multiply_odds(values, shift).tolist()
    return Band(low, high, band.n, observed, band.patients, start, end)
