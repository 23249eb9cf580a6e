"""A library: the indexed images of a model version, opened for search and kept up to date while searches run."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.retrieval.filters import OperatingPoints
from chestai.retrieval.index_table import facts_schema, name_table
from chestai.retrieval.query import Hit, Query, QueryImage
from chestai.retrieval.search import search
from chestai.retrieval.segment import Segment
from chestai.retrieval.segment_files import SegmentFiles


@dataclass(frozen=True)
class Opened:
    """A version of the index table, and its segments by the names of their Parquet files, one a line."""

    version: int
    segments: Mapping[str, Segment]


class Library:
    """The index of a model version in a lake. Searches may run in many threads, also during a refresh.

    Attributes:
        points: The findings of the model and their operating points (`Card.thresholds`).
    """

    def __init__(
        self,
        lake: Lake,
        version: int,
        points: OperatingPoints,
        copy_correlation: float = 0.997,
        engine: Literal["exact", "lance"] = "exact",
    ) -> None:
        """Opens the index; on a machine that has not seen it, the exact engine copies it into the user's cache.

        Args:
            copy_correlation: As of `chestai.retrieval.search.search`.
            engine: With `lance`, files that `chestai.retrieval.lance_table` does not have yet are searched exactly.

        Raises:
            UserError: There is no index of this version, or it is of other findings; the engine is not installed.
        """
        self._lake, self._table, self._engine = lake, name_table(version), engine
        self.version, self.points, self._copy_correlation = version, points, copy_correlation
        self._files = SegmentFiles(lake.uri(self._table))
        self._refreshing = threading.Lock()
        self._opened = self._open({})

    @property
    def segments(self) -> tuple[Segment, ...]:
        """As of the last refresh."""
        return tuple(self._opened.segments.values())

    def __len__(self) -> int:
        return sum(segment.facts.num_rows for segment in self.segments)

    def refresh(self) -> bool:
        """Opens the newest version of the index. Returns whether it is another than before.

        Raises:
            UserError: As the constructor.
        """
        with self._refreshing:
            if self._lake.version(self._table) == self._opened.version:
                return False
            self._opened = self._open(self._opened.segments)
            return True

    def search(self, query: Query, beside: Sequence[Segment] = ()) -> list[Hit]:
        """Finds the best hits, see `chestai.retrieval.search.search`.

        Args:
            beside: Segments of other images, which are searched too.
        """
        return search([*self.segments, *beside], query, self.points, self._copy_correlation)

    def find_image(self, image_id: str) -> QueryImage | None:
        """The indexed image of this ID, to search for others like it; None if there is none."""
        return self._find("image_id", image_id)

    def find_content(self, sha256: str) -> QueryImage | None:
        """The indexed image with this content; None if there is none."""
        return self._find("sha256", sha256)

    def _find(self, column: str, value: str) -> QueryImage | None:
        for segment in self.segments:
            position = pc.index(segment.facts[column], value).as_py()
            if position >= 0:
                at, row = np.array([position]), segment.facts.slice(position, 1).to_pylist()[0]
                thumbnail = segment.read_thumbnails(at)[0].tobytes()
                return QueryImage(segment.read_vectors(at)[0], thumbnail, row["patient"], row["sha256"])
        return None

    def _open(self, known: Mapping[str, Segment]) -> Opened:
        table = self._lake.open(self._table)
        columns = facts_schema([*self.points]).names
        if missing := {*columns} - {field.name for field in table.schema().fields}:
            lacks = ", ".join(sorted(missing))
            raise UserError(f"{self._table} in {self._lake.root} lacks {lacks}: run `python -m pipelines.index`")
        names: list[str] = pa.table(table.get_add_actions())["path"].to_pylist()
        segments = self._open_lance(names, columns, known) if self._engine == "lance" else {}
        covered = {name for joined in segments for name in joined.split("\n")}
        alone = [name for name in sorted(names) if name not in covered]
        segments |= {name: known.get(name) or self._files.open(name, columns) for name in alone}
        self._files.prune(alone)
        return Opened(table.version(), segments)

    def _open_lance(self, names: Sequence[str], columns: list[str], known: Mapping[str, Segment]) -> dict[str, Segment]:
        """One segment of those files that LanceDB has; none if it has none of them."""
        from chestai.retrieval import lance_segment, lance_table

        table = lance_table.open_table(self._lake, self.version)
        held = set() if table is None else {*lance_table.read_places(table)[lance_table.PART].unique().to_pylist()}
        covered = sorted(held & {*names})
        joined = "\n".join(covered)
        if not covered or joined in known:
            return {joined: known[joined]} if covered else {}
        facts = {name: self._files.read_facts(name, columns) for name in covered}
        return {joined: lance_segment.open_segment(table, facts)}
