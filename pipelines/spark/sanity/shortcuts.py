"""Shortcuts: a finding that a fact about the file, and no look at the film, predicts nearly perfectly."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from chestai.config.schema import Sanity
from chestai.labels.demographics import LATERAL
from chestai.lake.remark import Remark
from chestai.metrics.ranking import auroc
from pipelines.spark.sanity.films import Films

BINS = 64  # of equally many images, in which numbers are looked up
SHOWN = 5  # findings in a line
NAMES = {"bytes": "file size", "width": "width", "height": "height", "channels": "number of channels"}
WORDS = {"folder": "folder", "source": "source"}


def find_shortcuts(
    films: Films, vocabulary: Sequence[str], class_folders: Collection[str], limits: Sanity
) -> list[Remark]:
    """Return a warning for each fact about files that predicts a finding with an AUROC above the limit.

    A fact predicts by the share of positives among images of the same value (numbers: of the same bin) of the other
    half of the patients. So a folder for each patient predicts nothing.

    Args:
        class_folders: Sources whose labels are their folders, which are then no shortcut.
    """
    films = films.select(films.facts["view"].ne(LATERAL).to_numpy(bool))
    first = films.fold_patients(2) == 0
    remarks = []
    for column, name in {**NAMES, **WORDS}.items():
        codes = _encode(films.facts, column, class_folders)
        found = {}
        for finding, targets in zip(vocabulary, films.targets.T, strict=True):
            area = measure_shortcut(codes, targets, first, limits.min_count)
            if area > limits.shortcut_auroc:
                found[finding] = area
        if found:
            remarks.append(Remark(f"{_describe(name, found)} (sanity.shortcut_auroc)", warns=True))
    return remarks


def measure_shortcut(
    codes: NDArray[np.intp], targets: NDArray[np.float32], first: NDArray[np.bool_], min_count: int
) -> float:
    """Return the AUROC with which a fact predicts a finding, in [0, 1]; NaN with too few positives or negatives.

    Args:
        codes: (N,) the value of the fact, from 0.
        targets: (N,) 1, 0 or NaN.
        first: (N,) whether an image belongs to the first half.
        min_count: Positives and negatives needed.
    """
    known = ~np.isnan(targets)
    codes, positive, first = codes[known], targets[known] == 1, first[known]
    if min(positive.sum(), (~positive).sum()) < min_count:
        return float("nan")
    scores = np.zeros(len(codes))
    for half in (first, ~first):
        size = int(codes.max()) + 1
        count = np.bincount(codes[~half], minlength=size)
        hits = np.bincount(codes[~half], positive[~half], minlength=size)
        prior = positive[~half].mean() if (~half).any() else 0.0  # of a value that the other half lacks
        scores[half] = ((hits + prior) / (count + 1))[codes[half]]
    return auroc(positive.astype(float), scores)


def _encode(facts: pd.DataFrame, column: str, class_folders: Collection[str]) -> NDArray[np.intp]:
    """Return the values of a fact as (N,) numbers from 0."""
    if column == "folder":
        words = facts["folder"].where(~facts["source"].isin(class_folders), "")
        return np.asarray(pd.factorize(words)[0], np.intp)
    if column == "source":
        return np.asarray(pd.factorize(facts["source"])[0], np.intp)
    return bin_numbers(facts[column].to_numpy(float))


def bin_numbers(values: ArrayLike) -> NDArray[np.intp]:
    """Return the bin of each number, from 0; a number that is itself an edge, such as the usual width, has its own."""
    numbers = np.asarray(values, float)
    if not numbers.size:
        return np.zeros(0, np.intp)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1], method="nearest"))
    return np.searchsorted(edges, numbers, "left") + np.searchsorted(edges, numbers, "right")


def _describe(name: str, found: dict[str, float]) -> str:
    best = sorted(found.items(), key=lambda item: -item[1])
    findings = ", ".join(f"{finding} (AUROC {area:.3f})" for finding, area in best[:SHOWN])
    more = f" and {len(best) - SHOWN} more" if len(best) > SHOWN else ""
    return f"the {name} of a file alone tells {findings}{more}: a network may learn that in place of the film"
