"""The exact search against brute force: slices, masks that pass many or few, and many that are far away."""

from pathlib import Path

import numpy as np
import pytest

from chestai.retrieval import matrix
from chestai.retrieval.matrix import Mask, Matrix

RNG = np.random.default_rng(5)
ROWS, WIDTH = 3_000, 24


def draw(count: int) -> np.ndarray:
    vectors = RNG.standard_normal((count, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


VECTORS = draw(ROWS).astype(np.float16)
QUERIES = draw(20)
NEAR = VECTORS.astype(np.float32) @ QUERIES[0] > 0  # about half
MASKS = {
    "none": None,
    "all": np.ones(ROWS, bool),
    "half": RNG.random(ROWS) < 0.5,
    "few": RNG.random(ROWS) < 0.01,
    "the far half": ~NEAR,
    "fewer than wanted": np.arange(ROWS) < 3,
    "nothing": np.zeros(ROWS, bool),
}


@pytest.fixture(params=[1, 3], ids=["one slice", "three slices"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Matrix:
    monkeypatch.setattr(matrix, "CORES", request.param)
    monkeypatch.setattr(matrix, "SLICE_ROWS", 10)
    Matrix.build(VECTORS).save(tmp_path / "matrix")
    return Matrix.map(tmp_path / "matrix")


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_finds_what_brute_force_finds(many: Matrix, mask: Mask | None) -> None:
    allowed = np.arange(ROWS) if mask is None else np.flatnonzero(mask)
    for query in QUERIES:
        products = VECTORS[allowed].astype(np.float32) @ query
        best = np.argsort(-products)[:10]
        positions, values = many.find_nearest(query, 10, mask)
        assert positions.tolist() == allowed[best].tolist()
        np.testing.assert_allclose(values, products[best], atol=1e-5)


def test_all_rows_may_be_asked_for(many: Matrix) -> None:
    positions, _ = many.find_nearest(QUERIES[0], ROWS + 5)
    assert sorted(positions.tolist()) == list(range(ROWS))
    positions, _ = many.find_nearest(QUERIES[0], ROWS, MASKS["half"])
    assert sorted(positions.tolist()) == np.flatnonzero(MASKS["half"]).tolist()
