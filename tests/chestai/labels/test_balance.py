"""The weight of positives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.labels.balance import compute_balance_weight


@pytest.mark.parametrize(
    ("positives", "known", "weight"), [(1, 4, 3.0), (3, 4, 1 / 3), (2, 4, 1.0), (0, 4, 1.0), (4, 4, 1.0), (0, 0, 1.0)]
)
def test_negatives_by_positives_and_one_where_either_is_missing(positives: int, known: int, weight: float) -> None:
    assert compute_balance_weight(positives, known) == weight


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_both_labels_weigh_the_same(positives: int, negatives: int) -> None:
    assert compute_balance_weight(positives, positives + negatives) * positives == pytest.approx(negatives)
