"""A part of a library that is searched at once: facts about its images, their vectors and thumbnails."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.imaging.thumbnail import SIDE
from chestai.retrieval.index_table import facts_schema, normalise
from chestai.retrieval.matrix import Mask, Matrix

THUMBNAIL_BYTES = SIDE * SIDE
Thumbnails = NDArray[np.uint8]


class Segment(Protocol):
    """N images. facts: `index_table.facts_schema`, in the order of the positions."""

    @property
    def facts(self) -> pa.Table: ...

    def find_nearest(
        self, vector: NDArray[np.float32], count: int, mask: Mask | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the images whose vectors have the greatest products, as `chestai.retrieval.matrix.Matrix` does."""
        ...

    def read_vectors(self, positions: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n, D), of length 1."""
        ...

    def read_thumbnails(self, positions: NDArray[np.integer]) -> Thumbnails:
        """uint8 (n, `THUMBNAIL_BYTES`); zeros where a thumbnail is not known."""
        ...


@dataclass(frozen=True, eq=False)
class ExactSegment:
    """A segment that compares a query with every vector."""

    facts: pa.Table
    matrix: Matrix
    thumbnails: Thumbnails

    def __post_init__(self) -> None:
        if not self.facts.num_rows == len(self.matrix) == len(self.thumbnails):
            rows = (self.facts.num_rows, len(self.matrix), len(self.thumbnails))
            raise ValueError(f"a segment has {rows[0]} rows of facts, {rows[1]} vectors and {rows[2]} thumbnails")

    def find_nearest(
        self, vector: NDArray[np.float32], count: int, mask: Mask | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self.matrix.find_nearest(vector, count, mask)

    def read_vectors(self, positions: NDArray[np.integer]) -> NDArray[np.float32]:
        return self.matrix.read(positions)

    def read_thumbnails(self, positions: NDArray[np.integer]) -> Thumbnails:
        return np.asarray(self.thumbnails[positions])


def make_segment(
    findings: Sequence[str],
    facts: pa.Table,
    vectors: NDArray[np.floating],
    thumbnails: Sequence[bytes | None],
) -> ExactSegment:
    """A segment in memory, of images that are not in the index.

    Args:
        findings: Of the model.
        facts: (N,), some columns of `index_table.facts_schema`, at least `sha256` and `image_id`; others become null.
        vectors: (N, D), of any length.
        thumbnails: (N,), see `index_table.index_schema`.

    Raises:
        ValueError: N or a column's type differs.
    """
    schema = facts_schema(findings)
    columns = [
        facts[field.name] if field.name in facts.column_names else pa.nulls(facts.num_rows, field.type)
        for field in schema
    ]
    whole = pa.table(columns, names=schema.names).cast(schema)
    return ExactSegment(whole, Matrix.build(normalise(vectors).astype(np.float16)), stack_thumbnails(thumbnails))


def stack_thumbnails(thumbnails: Sequence[bytes | None]) -> Thumbnails:
    """uint8 (N, `THUMBNAIL_BYTES`), zeros for None."""
    empty = bytes(THUMBNAIL_BYTES)
    joined = b"".join(thumbnail or empty for thumbnail in thumbnails)
    return np.frombuffer(joined, np.uint8).reshape(-1, THUMBNAIL_BYTES)
