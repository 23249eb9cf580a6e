"""A segment in LanceDB: approximate where that is safe, exact where a filter would make it lose hits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.retrieval.index_table import THUMBNAIL
from chestai.retrieval.lance_table import PART, PARTITION_ROWS, ROW, VECTOR, read_places
from chestai.retrieval.matrix import Mask
from chestai.retrieval.segment import Thumbnails, stack_thumbnails

REFINE = 10  # times the wanted hits are compared exactly
PROBED = 0.25  # share of the partitions that a search looks into
PROBED_ROWS = 1_000_000  # or all partitions of fewer rows: comparing their codes costs little
NARROW = 0.05  # share of the rows below which those that pass a filter are all compared, at any number
DEEPEST = 2_048  # candidates of the index; where more would be needed, all rows that pass are compared
SCANNED_ROWS = 16_384  # vectors in memory at a time


@dataclass(frozen=True, eq=False)
class LanceSegment:
    """Rows of a table of `chestai.retrieval.lance_table`, which must not change.

    Attributes:
        row_ids: Of the N rows of the facts in the table; ascending.
        partitions: Of the table's index; 0 without one, when LanceDB compares all rows.
    """

    facts: pa.Table
    table: Any
    row_ids: NDArray[np.int64]
    partitions: int

    def find_nearest(
        self, vector: NDArray[np.float32], count: int, mask: Mask | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Asks the index for so many candidates that enough of them pass the mask, if that is not too deep.

        The index does not know the mask, so that its candidates are as good with a filter as without. Where a mask is
        narrow, or passes rows that are far from the query, all rows that pass are compared instead.
        """
        rows = len(self.row_ids)
        passing = rows if mask is None else int(mask.sum())
        count = min(count, passing)
        wanted = count if mask is None or not count else int(np.ceil(2 * count * rows / passing))
        if count and passing >= NARROW * rows and wanted <= DEEPEST:
            positions, products = self._ask_index(vector, wanted)
            if mask is not None:
                positions, products = positions[mask[positions]], products[mask[positions]]
            if len(positions) >= count:
                return positions[:count], products[:count]
        return self._compare(vector, count, np.arange(rows) if mask is None else np.flatnonzero(mask))

    def read_vectors(self, positions: NDArray[np.integer]) -> NDArray[np.float32]:
        column = self._take(positions, VECTOR).combine_chunks()
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(positions), -1).astype(np.float32)

    def read_thumbnails(self, positions: NDArray[np.integer]) -> Thumbnails:
        return stack_thumbnails(self._take(positions, THUMBNAIL).to_pylist())

    def _take(self, positions: NDArray[np.integer], column: str) -> pa.ChunkedArray:
        unique, inverse = np.unique(positions, return_inverse=True)
        query = self.table.take_row_ids(self.row_ids[unique].tolist()).select([column]).with_row_id()
        found = query.to_arrow().sort_by("_rowid")  # LanceDB promises no order
        return found[column].take(pa.array(inverse))

    def _ask_index(self, vector: NDArray[np.float32], wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows with the greatest products, the greatest first."""
        query = self.table.search(vector).distance_type("dot").select(["_distance"]).with_row_id(True)
        if self.partitions:
            share = max(PROBED, PROBED_ROWS / len(self.row_ids))
            query = query.nprobes(max(1, round(min(1.0, share) * self.partitions))).refine_factor(REFINE)
        found = query.limit(wanted).to_arrow()
        ids = found["_rowid"].to_numpy().astype(np.int64)
        positions = np.minimum(np.searchsorted(self.row_ids, ids), len(self.row_ids) - 1)
        known = self.row_ids[positions] == ids
        return positions[known], 1 - found["_distance"].to_numpy()[known]

    def _compare(
        self, vector: NDArray[np.float32], count: int, positions: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best of these rows by their exact products."""
        best, values = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for start in range(0, len(positions), SCANNED_ROWS):
            chunk = positions[start : start + SCANNED_ROWS]
            best = np.concatenate([best, chunk])
            values = np.concatenate([values, self.read_vectors(chunk) @ vector])
            order = np.argsort(-values, kind="stable")[:count]
            best, values = best[order], values[order]
        return best, values


def open_segment(table: Any, facts: Mapping[str, pa.Table]) -> LanceSegment:
    """The segment of those rows of a table whose Parquet files are known.

    Args:
        table: Of `chestai.retrieval.lance_table.open_table`.
        facts: Of each Parquet file, all its rows in their order.
    """
    names = pa.array([*facts], pa.string())
    places = read_places(table)
    places = places.filter(pc.is_in(places[PART], names)).sort_by("_rowid")
    starts = np.cumsum([0, *map(len, facts.values())])
    rows = starts[pc.index_in(places[PART], names).to_numpy()] + places[ROW].to_numpy()
    indices = table.list_indices()
    indexed = table.index_stats(indices[0].name).num_indexed_rows if indices else 0
    partitions = -(-indexed // PARTITION_ROWS)  # or fewer, if many rows came after the index was made
    ids = places["_rowid"].to_numpy().astype(np.int64)
    return LanceSegment(pa.concat_tables(facts.values()).take(pa.array(rows)), table, ids, partitions)
