"""An approximate index in LanceDB, for libraries that are too large for a machine's memory, or lie on S3.

The table `index/<model version>.lance` holds the vectors and thumbnails of the Delta table's Parquet files, and names
for each row its file and its place there. The index is IVF_PQ: vectors are grouped around centres, and compared by
short codes (Jegou et al., "Product quantization for nearest neighbor search", 2011); the best are compared exactly.
"""

import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from chestai.errors import UserError
from chestai.lake.files import resolve
from chestai.lake.lake import Lake
from chestai.retrieval.index_table import EMBEDDING, THUMBNAIL, name_table, unpack_embeddings

VECTOR, PART, ROW = "vector", "part", "row"
INDEXED_ROWS = 20_000  # below, comparing all vectors is as fast
PARTITION_ROWS = 2_048  # on average
CODE_NUMBERS = 8  # of a vector that one byte of its code stands for
ITERATIONS, SAMPLES = 12, 64  # of k-means, and vectors a centre: more would cost minutes for little
STALE = 0.1  # share of the rows that may lie outside the index, where they are compared exactly
BATCH_ROWS = 4_096


def open_database(lake: Lake) -> Any:
    """The folder of indexes as LanceDB opens it.

    Raises:
        UserError: LanceDB is not installed.
    """
    if find_spec("lancedb") is None:
        raise UserError("index.engine=lance needs lancedb: pip install --group lance")
    import lancedb

    return lancedb.connect(lake.uri("index"))


def open_table(lake: Lake, version: int) -> Any | None:
    """The table of a model version as it is now, whatever is written later; None if there is none.

    Raises:
        UserError: As `open_database`.
    """
    database = open_database(lake)
    if str(version) not in database.table_names(limit=100_000):
        return None
    table = database.open_table(str(version))
    table.checkout(table.version)
    return table


def read_places(table: Any) -> pa.Table:
    """`part`, `row` and `_rowid` of all rows, in their order in the table."""
    found: pa.Table = table.search().select([PART, ROW]).with_row_id(True).limit(max(1, table.count_rows())).to_arrow()
    return found


def update_table(lake: Lake, version: int, names: Sequence[str]) -> int:
    """Brings the table and its index up to date with the Delta table. Returns the number of rows added.

    Args:
        names: Of the Delta table's Parquet files, below it.

    Raises:
        UserError: As `open_database`.
    """
    known, database = open_table(lake, version), open_database(lake)
    had = set() if known is None else {*read_places(known)[PART].unique().to_pylist()}
    if known is None or had - {*names}:  # files went: the Delta table was written anew
        added, schema = list(names), _read_schema(lake, version, names)
        rows = pa.RecordBatchReader.from_batches(schema, _read_batches(lake, version, added, schema))
        table = database.create_table(str(version), rows, schema=schema, mode="overwrite")
        before = 0
    else:
        table, added = database.open_table(str(version)), [name for name in names if name not in had]
        before = table.count_rows()
        if added:
            table.add(
                pa.RecordBatchReader.from_batches(table.schema, _read_batches(lake, version, added, table.schema))
            )
    _index(table)
    return int(table.count_rows() - before)


def _index(table: Any) -> None:
    from lancedb.index import IvfPq

    rows, width = table.count_rows(), table.schema.field(VECTOR).type.list_size
    if rows < INDEXED_ROWS:
        return
    if not table.list_indices():
        partitions = max(1, math.ceil(rows / PARTITION_ROWS))
        codes = max(1, width // CODE_NUMBERS)
        training: dict[str, Any] = {"max_iterations": ITERATIONS, "sample_rate": SAMPLES}
        config = IvfPq(distance_type="dot", num_partitions=partitions, num_sub_vectors=codes, **training)
        table.create_index(VECTOR, config=config)
    elif table.index_stats(f"{VECTOR}_idx").num_unindexed_rows > STALE * rows:
        table.optimize()


def _read_schema(lake: Lake, version: int, names: Sequence[str]) -> pa.Schema:
    """The table's columns. Raises UserError if there is no row to learn the length of a vector from."""
    for name in names:
        with _open_part(lake, version, name) as file:
            for batch in file.iter_batches(1, columns=[EMBEDDING]):
                width = unpack_embeddings(batch[EMBEDDING]).shape[1]
                fields = {PART: pa.string(), ROW: pa.int32(), THUMBNAIL: pa.binary()}
                return pa.schema({**fields, VECTOR: pa.list_(pa.float16(), width)})
    raise UserError(f"{name_table(version)} in {lake.root} is empty: index.engine=lance needs an image")


def _read_batches(lake: Lake, version: int, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for name in names:
        with _open_part(lake, version, name) as file:
            row = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=[EMBEDDING, THUMBNAIL]):
                vectors = unpack_embeddings(batch[EMBEDDING])
                count, width = vectors.shape
                columns = [
                    pa.array([name] * count),
                    pa.array(range(row, row + count), pa.int32()),
                    batch[THUMBNAIL],
                    pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
                ]
                yield pa.record_batch(columns, schema=schema)
                row += count


def _open_part(lake: Lake, version: int, name: str) -> pq.ParquetFile:
    filesystem, path = resolve(lake.uri(name_table(version), name))
    return pq.ParquetFile(path, filesystem=filesystem)
