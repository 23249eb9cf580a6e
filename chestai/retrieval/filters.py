"""What an image must be to be found."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chestai.errors import UserError
from chestai.retrieval.matrix import Mask

OperatingPoints = Mapping[str, float | None]
"""Finding -> from which probability on it is called positive; None where that is undefined. Its keys are the model's
findings."""


@dataclass(frozen=True)
class Filters:
    """All of them must hold. An image about which a filter's fact is not known does not pass.

    Attributes:
        labelled: Findings that its label says are present.
        called: Findings whose probability reaches the operating point.
        not_called: Findings whose probability does not.
        bucket, view (PA or AP), sex (M or F), split: Its own.
        min_age, max_age: In completed years, both included.
    """

    labelled: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    not_called: tuple[str, ...] = ()
    bucket: str | None = None
    view: str | None = None
    sex: str | None = None
    split: str | None = None
    min_age: int | None = None
    max_age: int | None = None

    def __str__(self) -> str:
        given = ((field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self))
        return "; ".join(
            f"{name} {', '.join(value) if isinstance(value, tuple) else value}"
            for name, value in given
            if value not in (None, ())
        )

    def select(self, facts: pa.Table, points: OperatingPoints) -> Mask | None:
        """(N,), which rows of `index_table.facts_schema` pass; None if all do.

        Raises:
            UserError: The model does not know a finding, or has no operating point for one to be called.
        """
        self.check(points)
        masks = [_equal(facts[name], getattr(self, name)) for name in ("bucket", "view", "sex", "split")]
        masks += [pc.equal(facts[f"label_{finding}"], 1) for finding in self.labelled]
        masks += [pc.greater_equal(facts[f"prob_{finding}"], points[finding]) for finding in self.called]
        masks += [pc.less(facts[f"prob_{finding}"], points[finding]) for finding in self.not_called]
        if self.min_age is not None:
            masks.append(pc.greater_equal(facts["age_years"], pa.scalar(self.min_age, pa.float32())))
        if self.max_age is not None:
            masks.append(pc.less(facts["age_years"], pa.scalar(self.max_age + 1, pa.float32())))
        passing: Mask | None = None
        for mask in masks:
            if mask is not None:
                bits = pc.fill_null(mask, False).to_numpy()
                passing = bits if passing is None else passing & bits
        return passing

    def check(self, points: OperatingPoints) -> None:
        """Raises as `select`."""
        for finding in (*self.labelled, *self.called, *self.not_called):
            if finding not in points:
                raise UserError(f"the model does not know {finding}: choose one of {', '.join(points)}")
        for finding in (*self.called, *self.not_called):
            if points[finding] is None:
                raise UserError(f"the model has no operating point for {finding}: search by its label instead")
        if self.min_age is not None and self.max_age is not None and self.min_age > self.max_age:
            raise UserError(f"the search asks for ages from {self.min_age} to {self.max_age}, and there are none")

    def merge(self, other: "Filters") -> "Filters":
        """Both together.

        Raises:
            UserError: They contradict each other, such as two different views.
        """
        merged: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            if isinstance(ours, tuple):
                merged[name] = tuple(dict.fromkeys((*ours, *theirs)))
            elif ours is None or theirs is None or ours == theirs:
                merged[name] = ours if theirs is None else theirs
            elif name in ("min_age", "max_age"):
                merged[name] = max(ours, theirs) if name == "min_age" else min(ours, theirs)
            else:
                raise UserError(f"the search asks for {name} {ours} and {theirs} at once")
        return Filters(**merged)


def _equal(column: pa.ChunkedArray, value: str | None) -> pa.ChunkedArray | None:
    return None if value is None else pc.equal(column, value)


def combine(*masks: Mask | None) -> Mask | None:
    """What passes all of some masks, of which None lets everything pass."""
    given = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None
