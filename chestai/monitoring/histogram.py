"""Histograms of a feature's values, numeric or categorical, for `chestai.monitoring.drift`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10


@dataclass(frozen=True)
class NumericHistogram:
    """Bins between ascending cuts; a value on a cut belongs to the bin above. There is one more count than cuts.

    Raises:
        ValueError: Cuts that are not finite or do not ascend, or counts that do not fit them.
    """

    cuts: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not np.isfinite(self.cuts).all() or (np.diff(self.cuts) <= 0).any():
            raise ValueError("cuts must be finite and ascend")
        _check(self.counts, len(self.cuts) + 1)

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Bins at the deciles; a value that makes up a tenth by itself, such as 0 for black, gets its own bin."""
        finite = _finite(values)
        deciles = np.quantile(finite, np.arange(1, BINS) / BINS, method="higher") if len(finite) else np.zeros(0)
        repeated = deciles[1:][deciles[1:] == deciles[:-1]]
        cuts = tuple(np.unique(np.concatenate([deciles, np.nextafter(repeated, np.inf)])).tolist())
        empty = cls(cuts, (0,) * (len(cuts) + 1))
        return cls(cuts, tuple(_tally(empty.codes(finite), len(cuts) + 1)))

    def codes(self, values: ArrayLike) -> NDArray[np.intp]:
        """The bin of each value; -1 for a value that is not finite and so not counted."""
        numbers = np.asarray(values, np.float64)
        return np.where(np.isfinite(numbers), np.searchsorted(self.cuts, numbers, side="right"), -1)


@dataclass(frozen=True)
class CategoryHistogram:
    """A bin for each of a few words, and a last one for all others.

    Raises:
        ValueError: A word twice, or counts that do not fit the words.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len({*self.words}) != len(self.words):
            raise ValueError("words must differ")
        _check(self.counts, len(self.words) + 1)

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Self:
        """One bin per word of the values, and none for None."""
        words = tuple(sorted({word for word in values if word is not None}))
        empty = cls(words, (0,) * (len(words) + 1))
        return cls(words, tuple(_tally(empty.codes(values), len(words) + 1)))

    def codes(self, values: Sequence[str | None]) -> NDArray[np.intp]:
        """The bin of each word; -1 for None, which is not counted."""
        bins = {word: index for index, word in enumerate(self.words)}
        return np.array([-1 if word is None else bins.get(word, len(bins)) for word in values], np.intp)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64)
    return numbers[np.isfinite(numbers)]


def _tally(codes: NDArray[np.intp], bins: int) -> list[int]:
    return list(np.bincount(codes[codes >= 0], minlength=bins).tolist())


def _check(counts: Sequence[int], bins: int) -> None:
    if len(counts) != bins or any(not isinstance(count, int) or count < 0 for count in counts):
        raise ValueError(f"{len(counts)} counts must be {bins} numbers of images, 0 or more")
