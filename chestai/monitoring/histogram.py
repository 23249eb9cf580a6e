"""Bins that a feature's values are counted in (`chestai.monitoring.drift`): of a number, or of a word of a few."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10


@dataclass(frozen=True)
class NumericHistogram:
    """A number: bins between ascending cuts, a value on a cut belonging to the bin above; counts: one more than cuts.

    Raises:
        ValueError: cuts that are not finite or do not ascend, or counts that do not fit them.
    """

    cuts: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not np.isfinite(self.cuts).all() or (np.diff(self.cuts) <= 0).any():
            raise ValueError("cuts must be finite and ascend")
        _check(self.counts, len(self.cuts) + 1)

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """Bins at the deciles; a value that fills a tenth by itself, such as 0 for black, has a bin of its own."""
        known = _known(values)
        deciles = np.quantile(known, np.arange(1, BINS) / BINS, method="higher") if len(known) else np.zeros(0)
        alone = deciles[1:][deciles[1:] == deciles[:-1]]
        cuts = tuple(np.unique(np.concatenate([deciles, np.nextafter(alone, np.inf)])).tolist())
        empty = cls(cuts, (0,) * (len(cuts) + 1))
        return cls(cuts, tuple(_tally(empty.codes(known), len(cuts) + 1)))

    def codes(self, values: ArrayLike) -> NDArray[np.intp]:
        """The bin of each value; -1 where it is not finite, which is not counted."""
        numbers = np.asarray(values, np.float64)
        return np.where(np.isfinite(numbers), np.searchsorted(self.cuts, numbers, side="right"), -1)


@dataclass(frozen=True)
class CategoryHistogram:
    """A word of a few: a bin for each, and a last one for all others.

    Raises:
        ValueError: a word twice, or counts that do not fit the words.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len({*self.words}) != len(self.words):
            raise ValueError("words must differ")
        _check(self.counts, len(self.words) + 1)

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Self:
        words = tuple(sorted({word for word in values if word is not None}))
        empty = cls(words, (0,) * (len(words) + 1))
        return cls(words, tuple(_tally(empty.codes(values), len(words) + 1)))

    def codes(self, values: Sequence[str | None]) -> NDArray[np.intp]:
        """The bin of each word; -1 for None, which is not counted."""
        places = {word: place for place, word in enumerate(self.words)}
        return np.array([-1 if one is None else places.get(one, len(places)) for one in values], np.intp)


def _known(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64)
    return numbers[np.isfinite(numbers)]


def _tally(codes: NDArray[np.intp], bins: int) -> list[int]:
    return list(np.bincount(codes[codes >= 0], minlength=bins).tolist())


def _check(counts: Sequence[int], bins: int) -> None:
    if len(counts) != bins or any(not isinstance(one, int) or one < 0 for one in counts):
        raise ValueError(f"{len(counts)} counts must be {bins} numbers of images, 0 and up")
