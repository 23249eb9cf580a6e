"""How well a search by a text finds images with the findings that it asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats
from chestai.metrics.ranking import Ranking, area_under_precision_recall, measure_rankings, precision_of_first
from chestai.metrics.retrieval import FIRST_HITS


@dataclass(frozen=True)
class AskedFindings:
    """What a text asks for. present, absent: columns of findings."""

    present: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()


@dataclass(frozen=True)
class TextResult:
    """The hits of one text among the images of which it is known whether they are what it asks for.

    Attributes:
        images: Their number.
        right: How many of them are; their share is what chance finds.
        average_precision: Of the whole order (AUPRC).
        precision: Of the first hits.
    """

    text: str
    images: int
    right: int
    average_precision: Estimate
    precision: Estimate


@dataclass(frozen=True)
class TextSearchReport:
    """first: number of hits that `precision` looks at. outside: texts that the model's vocabulary does not cover."""

    first: int
    results: tuple[TextResult, ...]
    outside: tuple[str, ...] = ()


def measure_text_search(
    asked: Mapping[str, AskedFindings],
    targets: Floats,
    scores: Sequence[Floats],
    patients: NDArray[Any],
    bootstrap: Bootstrap,
    outside: Sequence[str] = (),
    first: int = FIRST_HITS,
) -> TextSearchReport:
    """Rank images for each text.

    Args:
        asked: Text -> what it asks for.
        targets: (N, F) 1, 0, or NaN for not known.
        scores: For each text, (N,) by which it ranks, highest first; images of one score come in any order.
    """
    labels = [label_images(targets, findings) for findings in asked.values()]
    rankings = [  # without images that have no score
        Ranking.of(np.where(np.isnan(values), np.nan, truth), values)
        for truth, values in zip(labels, scores, strict=True)
    ]
    areas: list[Callable[[Floats, Floats], Floats]] = [
        area_under_precision_recall,
        partial(precision_of_first, first=first),
    ]
    values = np.concatenate(  # (2, 1 + B, texts)
        [measure_rankings(areas, rankings, weights) for weights in bootstrap.weights(patients)], axis=1
    )
    results = [
        TextResult(
            text,
            len(ranking.index),
            int(ranking.positive.sum()),
            Estimate.of(values[0, :, column]),
            Estimate.of(values[1, :, column]),
        )
        for column, (text, ranking) in enumerate(zip(asked, rankings, strict=True))
    ]
    return TextSearchReport(first, tuple(results), tuple(outside))


def label_images(targets: Floats, findings: AskedFindings) -> Floats:
    """(N,), whether images are what a text asks for: 1, 0, or NaN for not known."""
    as_asked = np.concatenate([targets[:, [*findings.present]], 1 - targets[:, [*findings.absent]]], axis=1)
    labels = np.where((as_asked == 1).all(axis=1), 1.0, np.nan)
    labels[(as_asked == 0).any(axis=1)] = 0  # one label settles it, whatever is not known
    return labels
