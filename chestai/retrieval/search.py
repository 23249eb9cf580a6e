"""Searches segments for a query: exact masks, a common ranking, without copies and the query's own patient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.imaging.near_duplicates import standardise
from chestai.retrieval.filters import Filters, OperatingPoints, combine
from chestai.retrieval.index_table import normalise
from chestai.retrieval.matrix import Mask
from chestai.retrieval.query import Hit, Query, QueryImage
from chestai.retrieval.segment import Segment

SPARE = 16  # candidates beyond the wanted hits, for copies that drop out
MORE = 8  # times the candidates, where so many were copies that hits are missing


@dataclass(frozen=True)
class Candidate:
    """An image that may be a hit. value: of the ranking, greatest first."""

    value: float
    image_id: str
    sha256: str
    segment: int
    position: int


def search(
    segments: Sequence[Segment], query: Query, points: OperatingPoints, copy_correlation: float = 0.997
) -> list[Hit]:
    """Finds the best hits among all segments. A content that is in several counts once.

    Args:
        points: Of the model that made the vectors.
        copy_correlation: Of two thumbnails, from which on an image is a near-duplicate of the other.

    Raises:
        UserError: As `chestai.retrieval.filters.Filters.select`.
    """
    filters = query.filters
    if query.image is not None:
        filters = filters.merge(Filters(called=query.present, not_called=query.absent))
    Filters(labelled=(*query.present, *query.absent)).check(points)
    masks = [combine(filters.select(segment.facts, points), _others(segment, query)) for segment in segments]
    most = max((segment.facts.num_rows for segment in segments), default=0)
    wanted = query.count + SPARE
    while True:
        found = [list(_rank(segments, masks, query, wanted, number)) for number in range(len(segments))]
        candidates = sorted((one for some in found for one in some), key=lambda one: (-one.value, one.image_id))
        if any(len(some) == wanted for some in found):  # beyond these, a segment may have better ones than another's
            last = max(some[-1].value for some in found if len(some) == wanted)
            candidates = [one for one in candidates if one.value >= last]
        hits = _drop_copies(segments, candidates, query.image, copy_correlation)[: query.count]
        if len(hits) == query.count or wanted >= most:
            return _make_hits(segments, hits, query, points)
        wanted *= MORE


def _others(segment: Segment, query: Query) -> Mask | None:
    """Which images are neither of the query's patient nor have its content; None if all."""
    image = query.image
    if image is None:
        return None
    wanted = {"patient": image.patient, "sha256": image.sha256}
    masks = [
        pc.fill_null(pc.not_equal(segment.facts[name], value), True).to_numpy()
        for name, value in wanted.items()
        if value is not None
    ]
    return combine(*masks)


def _rank(
    segments: Sequence[Segment], masks: Sequence[Mask | None], query: Query, count: int, number: int
) -> Iterator[Candidate]:
    """The best candidates of one segment."""
    segment, mask = segments[number], masks[number]
    values: NDArray[np.floating]
    if query.image is not None:
        vector = normalise(query.image.vector[None])[0]
        positions, values = segment.find_nearest(vector, count, mask)
    else:
        positions, values = _take_best(score(segment.facts, query), count, mask)
    rows = segment.facts.select(["image_id", "sha256"]).take(pa.array(positions)).to_pylist()
    for row, position, value in zip(rows, positions.tolist(), values.tolist(), strict=True):
        yield Candidate(value, row["image_id"], row["sha256"], number, position)


def score(facts: pa.Table, query: Query) -> NDArray[np.float64]:
    """(N,), the product of probabilities of a query's findings, or the triage scores if it has none."""
    if not (query.present or query.absent):
        return np.nan_to_num(facts["triage_score"].to_numpy(), nan=0.0)
    values = np.ones(facts.num_rows)
    for finding in query.present:
        values *= facts[f"prob_{finding}"].to_numpy()
    for finding in query.absent:
        values *= 1 - facts[f"prob_{finding}"].to_numpy()
    return values


def _take_best(
    values: NDArray[np.float64], count: int, mask: Mask | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    allowed = np.flatnonzero(~np.isnan(values) if mask is None else mask & ~np.isnan(values))
    if len(allowed) > count:
        allowed = allowed[np.argpartition(-values[allowed], count - 1)[:count]]
    best = allowed[np.argsort(-values[allowed], kind="stable")]
    return best, values[best]


def _drop_copies(
    segments: Sequence[Segment], candidates: Sequence[Candidate], image: QueryImage | None, correlation: float
) -> list[Candidate]:
    """Without a content that came before, and near-duplicates of the query's image."""
    first = {one.sha256: one for one in reversed(candidates)}
    kept = [one for one in candidates if first[one.sha256] is one]
    if image is None or image.thumbnail is None or not kept:
        return kept
    ours = standardise(np.frombuffer(image.thumbnail, np.uint8)[None])[0]
    copies: set[tuple[int, int]] = set()
    for number, segment in enumerate(segments):
        positions = np.array([one.position for one in kept if one.segment == number], np.int64)
        if len(positions):
            alike = standardise(segment.read_thumbnails(positions)) @ ours >= correlation
            copies |= {(number, position) for position in positions[alike].tolist()}
    return [one for one in kept if (one.segment, one.position) not in copies]


def _make_hits(
    segments: Sequence[Segment], found: Sequence[Candidate], query: Query, points: OperatingPoints
) -> list[Hit]:
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for number, segment in enumerate(segments):
        positions = [one.position for one in found if one.segment == number]
        taken = segment.facts.take(pa.array(positions, pa.int64())).to_pylist() if positions else []
        rows |= {(number, position): row for position, row in zip(positions, taken, strict=True)}
    return [_make_hit(rows[one.segment, one.position], one.value, query, points) for one in found]


def _make_hit(row: dict[str, Any], value: float, query: Query, points: OperatingPoints) -> Hit:
    labels = {finding: row.pop(f"label_{finding}") for finding in points}
    has_findings = bool(query.present or query.absent)
    return Hit(
        distance=None if query.image is None else min(max(1 - value, 0.0), 2.0),
        score=value if query.image is None and has_findings else None,
        probabilities={finding: row.pop(f"prob_{finding}") for finding in points},
        labels={finding: None if label is None else label == 1 for finding, label in labels.items()},
        facts=row,
    )
