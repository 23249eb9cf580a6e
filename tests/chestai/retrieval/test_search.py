"""Search in memory: exact against brute force, without copies and the own patient, ranked by probabilities."""

import cv2
import numpy as np
import pyarrow as pa
import pytest

from chestai.errors import UserError
from chestai.imaging.thumbnail import SIDE
from chestai.retrieval.filters import Filters
from chestai.retrieval.index_table import EMBEDDING, THUMBNAIL
from chestai.retrieval.query import Query, QueryImage
from chestai.retrieval.search import search
from chestai.retrieval.segment import ExactSegment, make_segment
from tests.chestai.retrieval.samples import FINDINGS, POINTS, compare_all, draw_rows, draw_vectors

VECTORS = draw_vectors(1, 3000)
ROWS = draw_rows(1, VECTORS)
QUERIES = draw_vectors(2, 20)


def segment(rows: pa.Table = ROWS, vectors: np.ndarray = VECTORS) -> ExactSegment:
    facts = rows.drop_columns([EMBEDDING, THUMBNAIL])
    return make_segment(FINDINGS, facts, vectors, rows[THUMBNAIL].to_pylist())


WHOLE = segment()


def numbers(hits: list) -> list[int]:
    return [int(hit.image_id.removesuffix(".png")) for hit in hits]


@pytest.mark.parametrize("filters", [Filters(), Filters(view="PA"), Filters(labelled=("Mass",), min_age=80, sex="F")])
def test_finds_what_brute_force_finds(filters: Filters) -> None:
    mask = filters.select(WHOLE.facts, POINTS)
    for vector in QUERIES:
        hits = search([WHOLE], Query(QueryImage(7 * vector), filters=filters, count=12), POINTS)
        assert numbers(hits) == compare_all(VECTORS, vector, 12, mask)
        products = VECTORS[numbers(hits)] @ vector
        np.testing.assert_allclose(np.array([hit.distance for hit in hits], float), 1 - products, atol=2e-3)


def test_segments_are_searched_as_one() -> None:
    parts = [segment(ROWS.slice(at, 700), VECTORS[at : at + 700]) for at in range(0, 3000, 700)]
    query = Query(QueryImage(QUERIES[0]), filters=Filters(sex="F"), count=40)
    assert numbers(search(parts, query, POINTS)) == numbers(search([WHOLE], query, POINTS))
    text = Query(present=("Mass",), absent=("Effusion",), count=40)
    assert numbers(search(parts, text, POINTS)) == numbers(search([WHOLE], text, POINTS))


def test_more_hits_than_images_gives_all_of_them() -> None:
    few = segment(ROWS.slice(0, 5), VECTORS[:5])
    assert len(search([few], Query(QueryImage(QUERIES[0]), count=50), POINTS)) == 5
    assert search([], Query(QueryImage(QUERIES[0])), POINTS) == []
    assert search([few], Query(QueryImage(QUERIES[0]), filters=Filters(min_age=200)), POINTS) == []


def test_leaves_out_the_own_content_and_patient() -> None:
    row = WHOLE.facts.slice(300, 1).to_pylist()[0]
    image = QueryImage(VECTORS[300], patient=row["patient"], sha256=row["sha256"])
    found = numbers(search([WHOLE], Query(image, count=2990), POINTS))
    assert len(found) == 2990 and not {300, 301, 302} & {*found}
    alone = numbers(search([WHOLE], Query(QueryImage(VECTORS[300], sha256=row["sha256"]), count=2999), POINTS))
    assert len(alone) == 2999 and 300 not in alone


def test_images_without_a_patient_are_kept() -> None:
    unknown = ROWS.set_column(ROWS.schema.get_field_index("patient"), "patient", pa.nulls(3000, pa.string()))
    hits = search([segment(unknown)], Query(QueryImage(QUERIES[0], patient="nih:1")), POINTS)
    assert numbers(hits) == compare_all(VECTORS, QUERIES[0], 10)


def test_leaves_out_copies_even_if_they_fill_the_first_candidates() -> None:
    rng = np.random.default_rng(5)
    own = cv2.resize(rng.integers(0, 256, (6, 6), dtype=np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    vectors = draw_vectors(3, 400)
    vectors[:100] = vectors[0]  # a hundred copies, re-encoded and brighter
    noisy = [np.clip(own * 0.9 + 20 + rng.normal(0, 0.4, own.shape), 0, 255).astype(np.uint8) for _ in range(100)]
    rows = draw_rows(3, vectors)
    shown = [*(copy.tobytes() for copy in noisy), *rows[THUMBNAIL].to_pylist()[100:]]
    copied = make_segment(FINDINGS, rows.drop_columns([EMBEDDING, THUMBNAIL]), vectors, shown)
    hits = search([copied], Query(QueryImage(vectors[0], own.tobytes()), count=10), POINTS)
    assert numbers(hits) == [100 + at for at in compare_all(vectors[100:], vectors[0], 10)]
    unknown = search([copied], Query(QueryImage(vectors[0]), count=10), POINTS)
    assert all(number < 100 for number in numbers(unknown))


def test_a_content_in_two_segments_counts_once() -> None:
    beside = segment(ROWS.slice(0, 50), VECTORS[:50])
    hits = search([WHOLE, beside], Query(QueryImage(VECTORS[7]), count=20), POINTS)
    assert numbers(hits) == compare_all(VECTORS, VECTORS[7], 20)


def test_ranks_by_the_product_of_probabilities() -> None:
    hits = search([WHOLE], Query(present=("Effusion", "Mass"), absent=("Pneumothorax",), count=15), POINTS)
    table = WHOLE.facts.to_pandas()
    expected = table["prob_Effusion"] * table["prob_Mass"] * (1 - table["prob_Pneumothorax"])
    assert numbers(hits) == expected.sort_values(ascending=False).index[:15].tolist()
    assert [hit.score for hit in hits] == pytest.approx(expected.nlargest(15).tolist())
    assert all(hit.distance is None for hit in hits)


def test_filters_alone_find_the_most_urgent() -> None:
    hits = search([WHOLE], Query(filters=Filters(sex="F"), count=9), POINTS)
    table = WHOLE.facts.to_pandas().query("sex == 'F'")
    assert numbers(hits) == table["triage_score"].nlargest(9).index.tolist()
    assert all(hit.score is hit.distance is None for hit in hits)


def test_an_image_with_findings_ranks_by_distance_among_those_called() -> None:
    hits = search([WHOLE], Query(QueryImage(QUERIES[3]), ("Effusion",), ("Mass",)), POINTS)
    mask = Filters(called=("Effusion",), not_called=("Mass",)).select(WHOLE.facts, POINTS)
    assert numbers(hits) == compare_all(VECTORS, QUERIES[3], 10, mask)


def test_a_hit_has_its_facts() -> None:
    (hit,) = search([WHOLE], Query(QueryImage(VECTORS[8]), count=1), POINTS)
    row = ROWS.slice(8, 1).to_pylist()[0]
    others = ("prob_", "label_", EMBEDDING, THUMBNAIL)
    assert hit.facts == {name: value for name, value in row.items() if not name.startswith(others)}
    assert hit.probabilities == {finding: row[f"prob_{finding}"] for finding in FINDINGS}
    known = {1: True, 0: False, None: None}
    assert hit.labels == {finding: known[row[f"label_{finding}"]] for finding in FINDINGS}


def test_refuses_findings_that_the_model_does_not_know() -> None:
    with pytest.raises(UserError, match="does not know Edema"):
        search([WHOLE], Query(present=("Edema",)), POINTS)
    with pytest.raises(UserError, match="does not know Edema"):
        search([], Query(absent=("Edema",)), POINTS)


def test_a_segment_in_memory_may_know_little() -> None:
    facts = pa.table({"sha256": ["a" * 64], "image_id": ["upload"], "prob_Mass": [0.9]})
    beside = make_segment(FINDINGS, facts, QUERIES[:1], [None])
    hits = search([WHOLE, beside], Query(QueryImage(QUERIES[0], bytes(SIDE * SIDE)), count=3), POINTS)
    assert hits[0].image_id == "upload" and hits[0].facts["view"] is None
    assert "upload" not in [hit.image_id for hit in search([beside], Query(filters=Filters(view="PA")), POINTS)]
    with pytest.raises(ValueError, match="1 rows of facts, 2 vectors"):
        make_segment(FINDINGS, facts, QUERIES[:2], [None, None])
