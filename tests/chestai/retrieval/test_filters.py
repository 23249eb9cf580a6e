"""Filters: each against a plain reading of the rows, together, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chestai.errors import UserError
from chestai.retrieval.filters import Filters, combine
from tests.chestai.retrieval.samples import POINTS, draw_rows, draw_vectors

ROWS = draw_rows(1, draw_vectors(1, 300))


def passes(filters: Filters, row: dict[str, Any]) -> bool:
    """What the docstring of `Filters` says, row by row."""
    own = all(getattr(filters, name) in (None, row[name]) for name in ("bucket", "view", "sex", "split"))
    age = row["age_years"]
    old = filters.min_age is None or (age is not None and int(age) >= filters.min_age)
    young = filters.max_age is None or (age is not None and int(age) <= filters.max_age)
    labelled = all(row[f"label_{finding}"] == 1 for finding in filters.labelled)
    called = all(row[f"prob_{finding}"] >= POINTS[finding] for finding in filters.called)
    not_called = all(row[f"prob_{finding}"] < POINTS[finding] for finding in filters.not_called)
    return own and old and young and labelled and called and not_called


@pytest.mark.parametrize(
    "filters",
    [
        Filters(view="PA"),
        Filters(sex="F"),
        Filters(bucket="urgent", split="test"),
        Filters(min_age=61),
        Filters(max_age=17),
        Filters(min_age=40, max_age=40),
        Filters(labelled=("Mass",)),
        Filters(called=("Effusion", "Mass")),
        Filters(not_called=("Effusion",), sex="M"),
        Filters(("Mass",), ("Mass",), ("Effusion",), "soon", "AP", "M", "train", 18, 80),
    ],
    ids=str,
)
def test_selects_what_a_plain_reading_selects(filters: Filters) -> None:
    mask = filters.select(ROWS, POINTS)
    assert mask is not None
    assert mask.tolist() == [passes(filters, row) for row in ROWS.to_pylist()]
    assert mask.any() or filters.bucket == "soon"


def test_an_age_counts_in_completed_years() -> None:
    rows = ROWS.set_column(ROWS.schema.get_field_index("age_years"), "age_years", [np.full(300, 60.99, np.float32)])
    assert Filters(max_age=60).select(rows, POINTS).all()  # type: ignore[union-attr]
    assert not Filters(min_age=61).select(rows, POINTS).any()  # type: ignore[union-attr]


def test_no_filter_is_no_mask() -> None:
    assert Filters().select(ROWS, POINTS) is None
    assert combine(None, None) is None
    assert combine(np.array([True, False]), None, np.array([True, True])).tolist() == [True, False]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(labelled=("Edema",)), "does not know Edema: choose one of Effusion, Mass, Pneumothorax"),
        (Filters(called=("Pneumothorax",)), "no operating point for Pneumothorax"),
        (Filters(min_age=70, max_age=60), "ages from 70 to 60"),
    ],
)
def test_refuses_what_cannot_be(filters: Filters, message: str) -> None:
    with pytest.raises(UserError, match=message):
        filters.select(ROWS, POINTS)


def test_merges_two() -> None:
    ours, theirs = Filters(("Mass",), view="PA", min_age=18), Filters(("Mass", "Effusion"), min_age=40, max_age=60)
    assert ours.merge(theirs) == Filters(("Mass", "Effusion"), view="PA", min_age=40, max_age=60)
    with pytest.raises(UserError, match="view PA and AP at once"):
        ours.merge(replace(theirs, view="AP"))
