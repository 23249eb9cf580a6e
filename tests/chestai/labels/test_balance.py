"""Tests of the weight of positive labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.labels.balance import compute_balance_weight


@pytest.mark.parametrize(
    ("positives", "labelled", "weight"),
    [(1, 4, 3.0), (3, 4, 1 / 3), (2, 4, 1.0), (0, 4, 1.0), (4, 4, 1.0), (0, 0, 1.0)],
)
def test_weight_is_negatives_by_positives_or_one_if_either_is_missing(
    positives: int, labelled: int, weight: float
) -> None:
    assert compute_balance_weight(positives, labelled) == weight


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_weight_balances_positives_and_negatives(positives: int, negatives: int) -> None:
    assert compute_balance_weight(positives, positives + negatives) * positives == pytest.approx(negatives)
