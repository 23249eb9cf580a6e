"""Drift: how far the images and scores of an endpoint have moved from those of the model's training.

A `DriftReference` is stored beside the weights at training, a `DriftWindow` counts the last images of an endpoint, and
`measure_drift` compares the two, feature by feature:

- PSI, the population stability index: sum over bins of (q - p) * ln(q / p), p the reference's share of a bin and q the
  window's (Siddiqi, "Credit Risk Scorecards", 2006; the same as Jeffreys' divergence). Numbers are binned at the
  deciles of the reference, words are bins themselves. Half an image is added to each bin, so that an empty one has a
  logarithm.
- KS, the two-sample Kolmogorov-Smirnov distance, taken at the borders of the bins, so never more than that of the
  values themselves. Words have none. It is reported and decides nothing.

By convention a PSI below 0.1 is stable, and from 0.25 on drifted. A small window reaches that by chance: without drift,
PSI is (1/n + 1/m) times a chi-square of bins - 1 degrees of freedom, for n images in the window and m in the reference
(Yurdakul and Naranjo, "Statistical properties of the population stability index", Journal of Risk Model Validation
2020). So a feature has moved only if its PSI lies above the 1 - `ALPHA` / features quantile of that distribution, and
PSI less its expectation is compared with 0.1 and 0.25. With fewer than `MIN_IMAGES` images the verdict is unknown.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.monitoring.histogram import CategoryHistogram, NumericHistogram

Verdict = Literal["unknown", "stable", "moderate", "drifted"]  # from none to worst
Values = ArrayLike | Sequence[str | None]
Columns = Mapping[str, Values]  # feature -> its values, one per image
Counts = Mapping[str, Sequence[int]]  # feature -> images in each bin; counts of several windows add up

MODERATE, DRIFTED = 0.1, 0.25
ALPHA = 0.01  # probability of a false alarm over all features
MIN_IMAGES = 50
SIZE = 1000  # images of a window

_ORDER: tuple[Verdict, ...] = ("unknown", "stable", "moderate", "drifted")


@dataclass(frozen=True)
class DriftReference:
    """The histogram of each feature at the training of a model."""

    features: Mapping[str, NumericHistogram | CategoryHistogram]

    @classmethod
    def of(cls, columns: Columns) -> Self:
        """Counts values, which may be of different images from feature to feature.

        Columns of strings (and None) become `CategoryHistogram`, others `NumericHistogram`; a feature without any known
        value is left out.
        """
        features: dict[str, NumericHistogram | CategoryHistogram] = {}
        for name, values in columns.items():
            histogram = CategoryHistogram.of(values) if _are_words(values) else NumericHistogram.of(values)  # type: ignore[arg-type]
            if sum(histogram.counts):
                features[name] = histogram
        return cls(features)

    def updated(self, other: "DriftReference") -> Self:
        """Replaces features by those of another reference."""
        return type(self)({**self.features, **other.features})

    def to_json(self) -> str:
        """The reference as text."""
        return json.dumps(
            {"format": 1, "features": {name: vars(histogram) for name, histogram in self.features.items()}}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restores a reference from the text of `to_json`.

        Raises:
            ValueError: The text is no such reference.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("format") != 1:
            raise ValueError("no drift reference of format 1")
        try:
            return cls({str(name): _from_dict(histogram) for name, histogram in values["features"].items()})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no drift reference: {error!r}") from error


class DriftWindow:
    """Counts the last `size` images in fixed memory; safe for any number of threads."""

    def __init__(self, reference: DriftReference, size: int = SIZE) -> None:
        if size < 1:
            raise ValueError(f"a window of {size} images must hold 1 or more")
        self.features = dict(reference.features)
        bins = max((len(histogram.counts) for histogram in self.features.values()), default=1)
        self._codes = np.full((size, len(self.features)), -1, np.int16)
        self._counts = np.zeros((len(self.features), bins), np.int64)
        self._next = 0
        self._lock = threading.Lock()

    def add(self, columns: Columns) -> None:
        """Counts images, oldest first. Features without values, of unscored images for example, may be left out.

        Features that the reference lacks are ignored.

        Raises:
            ValueError: Columns differ in length.
        """
        given = {name: self.features[name].codes(columns[name]) for name in self.features if name in columns}  # type: ignore[arg-type]
        lengths = {len(codes) for codes in given.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns are of {sorted(lengths)} images, not of one number")
        if not lengths:
            return
        rows = np.full((lengths.pop(), len(self.features)), -1, np.int16)
        for column, name in enumerate(self.features):
            if name in given:
                rows[:, column] = given[name]
        with self._lock:
            for row in rows[-len(self._codes) :]:
                self._count(self._codes[self._next], -1)
                self._count(row, 1)
                self._codes[self._next] = row
                self._next = (self._next + 1) % len(self._codes)

    def counts(self) -> Counts:
        """Images in each bin now; those of several windows over one reference can be `merged`."""
        with self._lock:
            counts = self._counts.copy()
        return {
            name: counts[row, : len(histogram.counts)].tolist()
            for row, (name, histogram) in enumerate(self.features.items())
        }

    def _count(self, row: NDArray[np.int16], by: int) -> None:
        counted = np.flatnonzero(row >= 0)
        self._counts[counted, row[counted]] += by


def merged(parts: Sequence[Counts]) -> Counts:
    """Adds up the counts of several windows over one reference.

    Raises:
        ValueError: There are none, or they are of different references.
    """
    if not parts:
        raise ValueError("parts must be one or more")
    shapes = [{name: len(bins) for name, bins in part.items()} for part in parts]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("counts of windows over different references cannot be merged")
    return {name: np.sum([part[name] for part in parts], axis=0).tolist() for name in parts[0]}


@dataclass(frozen=True)
class FeatureDrift:
    """The drift of a feature. psi, ks: None without images, ks also for words. n: images of the window."""

    name: str
    psi: float | None
    ks: float | None
    verdict: Verdict
    n: int


@dataclass(frozen=True)
class DriftResult:
    """The drift of all features, in the order of the reference, and the worst verdict."""

    features: tuple[FeatureDrift, ...]
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return {"verdict": self.verdict, "features": [vars(feature) for feature in self.features]}


def measure_drift(reference: DriftReference, counts: Counts, min_images: int = MIN_IMAGES) -> DriftResult:
    """Compares the counts of a window with the reference.

    Args:
        min_images: Of window and reference; with fewer, the verdict of a feature is unknown.

    Raises:
        ValueError: The counts are of another reference.
    """
    bins = {name: len(histogram.counts) for name, histogram in reference.features.items()}
    if bins != {name: len(column) for name, column in counts.items()}:
        raise ValueError("the counts are of another reference")
    judged = sum(sum(column) >= min_images for column in counts.values())
    features = tuple(
        _judge(name, histogram, np.asarray(counts[name]), min_images, judged)
        for name, histogram in reference.features.items()
    )
    worst = max((_ORDER.index(feature.verdict) for feature in features), default=0)
    return DriftResult(features, _ORDER[worst])


def psi(reference: ArrayLike, window: ArrayLike) -> float:
    """The population stability index of two rows of counts over the same bins; NaN where either has none."""
    ours, theirs = _occupied(reference, window)
    if not ours.sum() or not theirs.sum():
        return float("nan")
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (ours, theirs))
    return float(((q - p) * np.log(q / p)).sum())


def ks(reference: ArrayLike, window: ArrayLike) -> float:
    """The Kolmogorov-Smirnov distance of two rows of counts over the same ordered bins; NaN where either has none."""
    ours, theirs = np.asarray(reference, np.float64), np.asarray(window, np.float64)
    if not ours.sum() or not theirs.sum():
        return float("nan")
    return float(np.abs(np.cumsum(ours) / ours.sum() - np.cumsum(theirs) / theirs.sum()).max())


def _judge(
    name: str, histogram: NumericHistogram | CategoryHistogram, window: NDArray[Any], min_images: int, judged: int
) -> FeatureDrift:
    from scipy.special import chdtri  # slow to load, and not needed for counting

    images, ours = int(window.sum()), np.asarray(histogram.counts)
    if not images:
        return FeatureDrift(name, None, None, "unknown", 0)
    moved = psi(ours, window)
    distance = ks(ours, window) if isinstance(histogram, NumericHistogram) else None
    if min(images, int(ours.sum())) < min_images:
        return FeatureDrift(name, moved, distance, "unknown", images)
    freedom = len(_occupied(ours, window)[0]) - 1
    noise = 1 / images + 1 / int(ours.sum())
    excess = moved - noise * freedom
    verdict: Verdict = "stable"
    if freedom and moved > noise * chdtri(freedom, ALPHA / judged) and excess >= MODERATE:
        verdict = "drifted" if excess >= DRIFTED else "moderate"
    return FeatureDrift(name, moved, distance, verdict, images)


def _occupied(reference: ArrayLike, window: ArrayLike) -> NDArray[np.float64]:
    """(2, B) counts of the bins in which either has an image."""
    both = np.array([reference, window], np.float64)
    return both[:, both.any(axis=0)]


def _are_words(values: Values) -> bool:
    if isinstance(values, np.ndarray):
        return values.dtype.kind not in "fiub"
    return any(isinstance(value, str) for value in values)  # type: ignore[union-attr]


def _from_dict(values: Mapping[str, Any]) -> NumericHistogram | CategoryHistogram:
    counts = tuple(values["counts"])
    if "words" in values:
        return CategoryHistogram(tuple(map(str, values["words"])), counts)
    return NumericHistogram(tuple(map(float, values["cuts"])), counts)
