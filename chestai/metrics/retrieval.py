"""How well a search by an image finds images of the same findings, beside rankings that know less.

Every query is compared with every image of the library, so no number here depends on an approximate index. Images of
the query's own patient are left out. Of a finding, only images with a known label count, as queries and as hits.

- Precision: the share of the first hits that have the finding of the query.
- Average precision of the first hits: the mean of the precision at each hit that has it, over as many such hits as
  there could be (Manning, Raghavan & Schuetze, "Introduction to information retrieval", 2008, chapter 8). It also
  rewards order.

Chance is computed, not drawn: the expected values of a random order of the library, and of its images of the query's
view.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats
from chestai.metrics.ranking import mean_of_defined

MODEL, RANDOM, SAME_VIEW = "model", "random", "same view"
FIRST_HITS = 10
CHUNK = 512  # queries compared at a time


@dataclass(frozen=True, eq=False)
class SearchSet:
    """N images that are searched with, or searched among.

    Attributes:
        targets: (N, F) 1, 0, or NaN for not known.
        patients, views: (N,) of any one sortable type.
        vectors: Name of a network, `MODEL` among them -> (N, D), of length 1.
    """

    targets: Floats
    patients: NDArray[Any]
    views: NDArray[Any]
    vectors: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class FindingRetrieval:
    """One finding, over the queries that have it; undefined without such queries, or if the library has none of it.

    Attributes:
        queries, relevant: Images with it among the queries, and in the library.
        precision, average_precision: Name of a ranking -> mean over the queries.
    """

    finding: str
    queries: int
    relevant: int
    precision: Mapping[str, Estimate]
    average_precision: Mapping[str, Estimate]


@dataclass(frozen=True)
class RetrievalReport:
    """All findings in column order.

    Attributes:
        first: Number of hits looked at.
        queries, library: Numbers of images.
        rankings: Names: `MODEL`, other networks, `SAME_VIEW`, `RANDOM`.
        macro_precision, macro_average_precision: Name of a ranking -> mean over the defined findings.
        gains: Name of another ranking -> how much the model's macro precision exceeds its.
        left_out: Name of a network -> why it is not among the rankings.
    """

    first: int
    queries: int
    library: int
    rankings: tuple[str, ...]
    findings: tuple[FindingRetrieval, ...]
    macro_precision: Mapping[str, Estimate]
    macro_average_precision: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]
    left_out: Mapping[str, str] = field(default_factory=dict)


class Hits(NamedTuple):
    """Of n queries and one ranking: precision and average precision of the first hits, (n,) each."""

    precision: Floats
    average_precision: Floats


def measure_retrieval(
    queries: SearchSet,
    library: SearchSet,
    findings: Sequence[str],
    bootstrap: Bootstrap,
    left_out: Mapping[str, str] | None = None,
    first: int = FIRST_HITS,
) -> RetrievalReport:
    """Search with every query that has a finding. The library counts as fixed: intervals reflect the queries.

    Raises:
        ValueError: The two sets have vectors of different networks.
    """
    if {*queries.vectors} != {*library.vectors}:
        raise ValueError(f"queries have vectors of {[*queries.vectors]}, the library of {[*library.vectors]}")
    rankings = (*queries.vectors, SAME_VIEW, RANDOM)
    values = np.full((2, len(rankings), len(findings), len(queries.targets)), np.nan)
    for column in range(len(findings)):
        for rows in _chunk(np.flatnonzero(queries.targets[:, column] == 1)):
            for place, hits in enumerate(_search(queries, library, rows, column, first)):
                values[:, place, column, rows] = hits
    means = _resample(values, queries.patients, bootstrap)
    estimates = np.apply_along_axis(Estimate.of, 0, means)
    macro = mean_of_defined(means)
    precision, average = (
        {name: Estimate.of(macro[:, kind, at]) for at, name in enumerate(rankings)} for kind in (0, 1)
    )
    own = rankings.index(MODEL)
    return RetrievalReport(
        first,
        len(queries.targets),
        len(library.targets),
        rankings,
        tuple(
            FindingRetrieval(
                finding,
                int((queries.targets[:, column] == 1).sum()),
                int((library.targets[:, column] == 1).sum()),
                dict(zip(rankings, estimates[0, :, column], strict=True)),
                dict(zip(rankings, estimates[1, :, column], strict=True)),
            )
            for column, finding in enumerate(findings)
        ),
        macro_precision=precision,
        macro_average_precision=average,
        gains={name: Estimate.of(macro[:, 0, own] - macro[:, 0, at]) for at, name in enumerate(rankings) if at != own},
        left_out=dict(left_out or {}),
    )


def _chunk(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _search(queries: SearchSet, library: SearchSet, rows: NDArray[np.intp], column: int, first: int) -> Iterator[Hits]:
    """The hits of some queries in every ranking, in order."""
    allowed = ~np.isnan(library.targets[:, column]) & ~_equal(queries.patients[rows], library.patients)
    relevant = library.targets[:, column] == 1
    total = (allowed & relevant).sum(axis=1)
    for name, vectors in queries.vectors.items():
        products = np.where(allowed, vectors[rows] @ library.vectors[name].T, -np.inf)
        yield _judge(products, relevant, total, first)
    same_view = allowed & _equal(queries.views[rows], library.views)
    for among in (same_view, allowed):
        yield _expect(among.sum(axis=1), (among & relevant).sum(axis=1), total, first)


def _equal(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    """(n, m), which values are the same."""
    codes = np.unique(np.concatenate([ours, theirs]), return_inverse=True)[1]  # faster than to compare texts
    return np.asarray(codes[: len(ours), None] == codes[None, len(ours) :])


def _judge(products: NDArray[np.floating], relevant: NDArray[np.bool_], total: NDArray[Any], first: int) -> Hits:
    """Hits in descending order of (n, m) products, of which -inf is never found. total: (n,) that could be found."""
    first = min(first, products.shape[1])
    best = np.argpartition(-products, first - 1, axis=1)[:, :first]
    order = np.argsort(-np.take_along_axis(products, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    found = np.take_along_axis(products, best, axis=1) > -np.inf
    right = relevant[best] & found
    at_each = np.cumsum(right, axis=1) / np.arange(1, first + 1)
    return _divide(right.sum(axis=1), found.sum(axis=1), (at_each * right).sum(axis=1), total, first)


def _expect(images: NDArray[Any], right: NDArray[Any], total: NDArray[Any], first: int) -> Hits:
    """The expected hits of a random order of (n,) images, of which so many are right.

    The hit at place i is right with probability p = right / images, and each of the i - 1 before it then with
    probability (right - 1) / (images - 1).
    """
    share = np.divide(right, images, out=np.zeros(len(images)), where=images > 0)
    again = np.divide(right - 1, images - 1, out=np.zeros(len(images)), where=images > 1)
    places = np.arange(1, first + 1)
    each = share[:, None] * (1 + (places - 1) * again[:, None]) / places
    summed = np.where(places <= images[:, None], each, 0).sum(axis=1)
    found = np.minimum(images, first)
    return _divide(share * found, found, summed, total, first)


def _divide(right: Floats, found: NDArray[Any], summed: Floats, total: NDArray[Any], first: int) -> Hits:
    """Undefined where nothing can be found, or nothing that is right."""
    possible = np.minimum(total, first)
    defined = (total > 0) & (found > 0)
    shares = [(right, found), (summed, possible)]
    return Hits(*(np.divide(part, whole, out=np.full(len(total), np.nan), where=defined) for part, whole in shares))


def _resample(values: Floats, patients: NDArray[Any], bootstrap: Bootstrap) -> Floats:
    """The mean over the defined ones of (..., N) values in each replicate: (1 + B, ...)."""
    flat = values.reshape(-1, values.shape[-1]).T
    defined = ~np.isnan(flat)
    columns = np.concatenate([np.where(defined, flat, 0), defined], axis=1)
    sums, counts = np.split(np.concatenate([rows @ columns for rows in bootstrap.weights(patients)]), 2, axis=1)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means.reshape(-1, *values.shape[:-1])
