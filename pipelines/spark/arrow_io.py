"""Between Spark frames and everything else: text files, Arrow and Delta tables in, Delta tables out.

Executors read and write files themselves, through pyarrow: so rows know their line, an object store needs no Hadoop
connector, and a lost executor's part is simply done again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow import fs, parquet
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from chestai.lake.delta import Part, commit, write_part
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from pipelines.spark.python_workers import without_zip_rescan

ROWS_A_FILE = 200_000  # a reader wants few, large files


def from_arrow(spark: SparkSession, rows: pa.Table) -> DataFrame:
    """An Arrow table as a Spark frame of the same columns."""
    return spark.createDataFrame(rows.to_pandas(), from_arrow_schema(rows.schema))


def read_lines(spark: SparkSession, locations: Sequence[str]) -> DataFrame:
    """The lines of text files that are not blank: location, line (from 1), text without its end (LF or CRLF)."""
    schema = "location string, line int, text string"
    return (
        _of_files(spark, locations)
        .mapInArrow(without_zip_rescan(_lines), schema)
        .repartition(spark.sparkContext.defaultParallelism)
    )


def _lines(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for location in _locations(batches):
        text = read_bytes(location).decode("utf-8-sig", errors="replace")
        lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        numbers = pa.array([number for number, _ in lines], pa.int32())
        texts = pa.array([line for _, line in lines], pa.string())
        where = pa.array([location] * len(lines), pa.string())
        yield pa.RecordBatch.from_arrays([where, numbers, texts], ["location", "line", "text"])


def read_delta(spark: SparkSession, lake: Lake, table: str, schema: pa.Schema) -> DataFrame:
    """The newest version of a Delta table; no rows where there is none, or one of other columns."""
    found = None if lake.version(table) is None else DeltaTable(lake.uri(table))
    fits = found is not None and [column.name for column in found.schema().fields] == schema.names
    locations = found.file_uris() if found is not None and fits else []
    return _of_files(spark, locations).mapInArrow(without_zip_rescan(_rows), from_arrow_schema(schema))


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for location in _locations(batches):
        filesystem, path = fs.FileSystem.from_uri(location)
        with filesystem.open_input_file(path) as file:
            yield from parquet.ParquetFile(file).iter_batches()


def to_delta(rows: DataFrame, count: int, lake: Lake, table: str, schema: pa.Schema) -> int:
    """Replace a table of the lake by the frame's rows and return the table's new version.

    Executors write the Parquet files; one commit then shows all of them or none. The driver sees file names only.

    Args:
        rows: has the columns of the schema.
        count: how many rows there are.

    Raises:
        RuntimeError: the frame holds another number of rows.
    """
    parts = _write_parts(rows.select(*schema.names), count, lake, table, schema) if count else []
    found = sum(part.rows for part in parts)
    if found != count:
        raise RuntimeError(f"{table} would get {found:,} rows instead of {count:,}")
    return commit(lake, table, schema, parts)


def _write_parts(rows: DataFrame, count: int, lake: Lake, table: str, schema: pa.Schema) -> list[Part]:
    gathered = rows.coalesce(1 + count // ROWS_A_FILE).sortWithinPartitions(*schema.names[:3])
    written = gathered.mapInArrow(without_zip_rescan(_writer(lake, table, schema)), "part string").collect()
    return [Part.from_row(part) for part in written]


def _writer(
    lake: Lake, table: str, schema: pa.Schema
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        part = write_part(lake, table, schema, batches)
        if part.rows:
            yield pa.RecordBatch.from_pylist([part.row()])

    return write


def _of_files(spark: SparkSession, locations: Sequence[str]) -> DataFrame:
    """Files to be read by the executors, one to a task."""
    files = spark.createDataFrame([(location,) for location in locations], "location string")
    return files.repartition(len(locations)) if len(locations) > 1 else files


def _locations(batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    for batch in batches:
        yield from batch.column("location").to_pylist()
