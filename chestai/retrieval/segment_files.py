"""The segments of an index table as files in the user's cache: for each Parquet file, its matrix and its thumbnails.

They are made when a table is first opened on a machine. Parquet files never change, so neither do these; they appear
whole, under their final names. Those of Parquet files that the table no longer has are removed.
"""

import hashlib
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from chestai.lake.atomic_write import atomic_write
from chestai.lake.files import resolve
from chestai.lake.user_cache import find_user_cache
from chestai.retrieval.index_table import EMBEDDING, THUMBNAIL, unpack_embeddings
from chestai.retrieval.matrix import Matrix
from chestai.retrieval.segment import THUMBNAIL_BYTES, ExactSegment, Thumbnails, stack_thumbnails

GRACE_S = 3600  # a file that is not of the table may be one that another process is writing


@dataclass(frozen=True)
class SegmentFiles:
    """The folder of a table's segments.

    Args:
        uri: Of the table.
    """

    uri: str

    @property
    def folder(self) -> Path:
        """`chestai/index/<hash of the table's location>` in the user's cache."""
        return find_user_cache("index") / hashlib.sha256(self.uri.encode()).hexdigest()[:16]

    def open(self, name: str, columns: list[str]) -> ExactSegment:
        """Opens the segment of a Parquet file, by its name below the table; makes its files if they are missing.

        Args:
            columns: Of the facts.

        Raises:
            OSError: The Parquet file cannot be read, or the cache cannot be written.
        """
        with self._open_parquet(name) as parquet:
            facts = parquet.read(columns=columns)
            mapped = self._map(name, facts.num_rows)
            if mapped is None:
                self._make(name, parquet)
                mapped = self._map(name, facts.num_rows)
        if mapped is None:
            raise OSError(f"the files of {name} in {self.folder} cannot be read back")
        return ExactSegment(facts, *mapped)

    def read_facts(self, name: str, columns: list[str]) -> pa.Table:
        """Reads the facts of a Parquet file. Raises as `open`."""
        with self._open_parquet(name) as parquet:
            return parquet.read(columns=columns)

    def prune(self, names: Collection[str]) -> None:
        """Removes the files of other Parquet files than these. Who has them open can go on reading."""
        kept = {path.name for name in names for path in self._paths(name)}
        for path in self.folder.glob("*") if self.folder.is_dir() else ():
            with suppress(OSError):
                if path.name not in kept and time.time() - path.stat().st_mtime > GRACE_S:
                    path.unlink()

    def _open_parquet(self, name: str) -> pq.ParquetFile:
        filesystem, path = resolve(f"{self.uri}/{name}")
        return pq.ParquetFile(path, filesystem=filesystem)

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.vectors", self.folder / f"{name}.thumbnails"

    def _map(self, name: str, rows: int) -> tuple[Matrix, Thumbnails] | None:
        """None if the files are missing or damaged."""
        vectors, thumbnails = self._paths(name)
        try:
            matrix = Matrix.map(vectors)
            shown = np.memmap(thumbnails, np.uint8, "r").reshape(-1, THUMBNAIL_BYTES)
        except (OSError, RuntimeError, ValueError):
            return None
        return (matrix, shown) if len(matrix) == len(shown) == rows else None

    def _make(self, name: str, parquet: pq.ParquetFile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        vectors, thumbnails = self._paths(name)
        Matrix.build(_read_codes(parquet)).save(vectors)
        with atomic_write(str(thumbnails)) as part:
            part.write_bytes(stack_thumbnails(parquet.read(columns=[THUMBNAIL])[THUMBNAIL].to_pylist()).tobytes())


def _read_codes(parquet: pq.ParquetFile) -> NDArray[np.float16]:
    """(N, D) of the column `embedding`."""
    return np.concatenate([unpack_embeddings(batch[EMBEDDING]) for batch in parquet.iter_batches(columns=[EMBEDDING])])
