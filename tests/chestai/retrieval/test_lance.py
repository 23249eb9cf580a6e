"""LanceDB against brute force: recall with and without filters, appends, rewrites, files that it does not have yet."""

from pathlib import Path

import numpy as np
import pytest

from chestai.lake.lake import Lake
from chestai.retrieval import lance_segment, lance_table
from chestai.retrieval.filters import Filters
from chestai.retrieval.index_table import name_table, write_rows
from chestai.retrieval.library import Library
from chestai.retrieval.query import Query, QueryImage
from chestai.retrieval.segment import ExactSegment, Segment
from tests.chestai.retrieval.samples import FINDINGS, POINTS, compare_all, draw_rows, draw_vectors

pytest.importorskip("lancedb")

COUNT, ADDED = 24_000, 500
VECTORS = draw_vectors(1, COUNT + ADDED, 128, 200)
ROWS = draw_rows(1, VECTORS)
QUERIES = draw_vectors(2, 40, 128, 200)
LEAST_RECALL = 0.98
FILTERS = [
    Filters(),
    Filters(view="PA"),
    Filters(sex="F", split="test"),
    Filters(labelled=("Mass",), min_age=90),
    Filters(labelled=FINDINGS, max_age=5, view="AP"),
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """An index in two files, and its LanceDB table."""
    lake = Lake(str(tmp_path_factory.mktemp("lance") / "lake"))
    write_rows(lake, 1, FINDINGS, [ROWS.slice(0, 9_000)], "append")
    write_rows(lake, 1, FINDINGS, [ROWS.slice(9_000, COUNT - 9_000)], "append")
    assert update(lake) == COUNT
    return lake


def update(lake: Lake) -> int:
    return int(lance_table.update_table(lake, 1, [uri.rsplit("/", 1)[1] for uri in lake.file_uris(name_table(1))]))


def number_rows(segment: Segment) -> np.ndarray:
    """The number of the image at each position: the files of a table come in any order."""
    return np.array([int(image_id[:-4]) for image_id in segment.facts["image_id"].to_pylist()])


def find(library: Library, vector: np.ndarray, filters: Filters, count: int = 10) -> set[int]:
    hits = library.search(Query(QueryImage(vector), filters=filters, count=count))
    return {int(hit.image_id[:-4]) for hit in hits}


def measure_recall(library: Library, filters: Filters, count: int = 10) -> float:
    """Against brute force, over all queries. The images are numbered as their vectors."""
    mask = filters.select(ROWS.slice(0, len(library)), POINTS)
    found = wanted = 0
    for vector in QUERIES:
        best = {*compare_all(VECTORS[: len(library)], vector, count, mask)}
        found, wanted = found + len(find(library, vector, filters, count) & best), wanted + len(best)
    assert wanted
    return found / wanted


@pytest.mark.slow  # the index takes half a minute to make
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_finds_what_brute_force_finds(lake: Lake, filters: Filters) -> None:
    library = Library(lake, 1, POINTS, engine="lance")
    (segment,) = library.segments
    assert isinstance(segment, lance_segment.LanceSegment) and segment.partitions > 1
    assert measure_recall(library, filters) >= LEAST_RECALL
    assert measure_recall(library, filters, 100) >= LEAST_RECALL


@pytest.mark.slow
def test_a_filter_that_passes_only_far_images_loses_none(lake: Lake) -> None:
    """Images of other clusters than the query's: the candidates of the index are all among its own."""
    (segment,) = Library(lake, 1, POINTS, engine="lance").segments
    vectors = VECTORS[number_rows(segment)]
    for vector in QUERIES:
        products = vectors @ vector
        mask = products < np.quantile(products, 0.3)
        positions, values = segment.find_nearest(vector, 10, mask)
        assert {*positions.tolist()} == {*compare_all(vectors, vector, 10, mask)}
        np.testing.assert_allclose(values, products[positions], atol=2e-3)


@pytest.mark.slow
def test_the_index_itself_is_asked(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the recall above would be that of comparing all rows."""
    (segment,) = Library(lake, 1, POINTS, engine="lance").segments
    monkeypatch.setattr(lance_segment.LanceSegment, "_compare", None)
    vectors = VECTORS[number_rows(segment)]
    positions, _ = segment.find_nearest(QUERIES[0], 10, Filters(view="PA").select(segment.facts, POINTS))
    assert len(positions) == 10
    monkeypatch.setattr(lance_segment, "PROBED_ROWS", 0)  # as with more than a million rows
    monkeypatch.setattr(lance_segment, "PROBED", 0.0)  # a single partition
    alone = [{*segment.find_nearest(vector, 100, None)[0].tolist()} for vector in QUERIES]
    missed = [len({*compare_all(vectors, vector, 100)} - some) for vector, some in zip(QUERIES, alone, strict=True)]
    assert sum(missed) > 0, "the search does not depend on the index"


@pytest.mark.slow
def test_reads_vectors_and_thumbnails_by_position(lake: Lake) -> None:
    (segment,) = Library(lake, 1, POINTS, engine="lance").segments
    positions = np.array([17_000, 3, 3, 8_999, 9_000])
    numbers = number_rows(segment)[positions]
    np.testing.assert_allclose(segment.read_vectors(positions), VECTORS[numbers], atol=1e-3)
    shown = [row.tobytes() for row in segment.read_thumbnails(positions)]
    assert shown == ROWS["thumbnail"].take(numbers).to_pylist()


def test_rows_that_it_lacks_are_searched_exactly_and_then_added(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_rows(lake, 1, FINDINGS, [ROWS.slice(0, 1_000)], "append")
    update(lake)
    library = Library(lake, 1, POINTS, engine="lance")
    write_rows(lake, 1, FINDINGS, [ROWS.slice(1_000, ADDED)], "append")
    assert library.refresh()
    assert [type(segment) for segment in library.segments] == [lance_segment.LanceSegment, ExactSegment]
    assert measure_recall(library, Filters(sex="F")) == 1
    assert update(lake) == ADDED
    again = Library(lake, 1, POINTS, engine="lance")
    assert len(again.segments) == 1 and len(again) == 1_500 and measure_recall(again, Filters(sex="F")) == 1
    assert update(lake) == 0


def test_follows_an_index_that_is_written_anew(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_rows(lake, 1, FINDINGS, [ROWS.slice(0, 1_000)], "append")
    update(lake)
    library = Library(lake, 1, POINTS, engine="lance")
    write_rows(lake, 1, FINDINGS, [ROWS.slice(0, 700)], "overwrite")
    assert library.refresh() and len(library) == 700
    assert measure_recall(library, Filters()) == 1
    assert update(lake) == 700
    assert library.refresh() is False, "the same rows, whoever searches them"
    assert measure_recall(Library(lake, 1, POINTS, engine="lance"), Filters()) == 1
