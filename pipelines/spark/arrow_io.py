"""Read text files, Arrow and Delta tables into Spark frames, and write frames as Delta tables.

Executors read and write files themselves, through pyarrow. So rows know their line number, an object store needs no
Hadoop connector, and the part of a lost executor is simply done again.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
from pyarrow import parquet
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from chestai.lake.delta import Part, commit_parts, write_part
from chestai.lake.files import decode_text, read_bytes, resolve
from chestai.lake.lake import Lake
from pipelines.spark.python_workers import without_zip_rescan

ROWS_PER_FILE = 200_000  # readers work best with few, large files


def from_arrow(spark: SparkSession, rows: pa.Table) -> DataFrame:
    """Return an Arrow table as a Spark frame with the same columns."""
    # Spark refuses columns of several chunks.
    return spark.createDataFrame(rows.combine_chunks().to_pandas(), from_arrow_schema(rows.schema))


def read_lines(spark: SparkSession, locations: Sequence[str]) -> DataFrame:
    """Return the non-blank lines of text files: location, line (from 1), text without its end (LF or CRLF)."""
    schema = "location string, line int, text string"
    return (
        _make_file_frame(spark, locations)
        .mapInArrow(without_zip_rescan(_read_lines), schema)
        .repartition(spark.sparkContext.defaultParallelism)
    )


def _read_lines(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for location in _iterate_locations(batches):
        text = decode_text(read_bytes(location))
        lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        columns = [
            pa.array([location] * len(lines), pa.string()),
            pa.array([number for number, _ in lines], pa.int32()),
            pa.array([line for _, line in lines], pa.string()),
        ]
        yield pa.RecordBatch.from_arrays(columns, ["location", "line", "text"])


def read_delta(spark: SparkSession, lake: Lake, table: str, schema: pa.Schema) -> DataFrame:
    """Return the newest version of a Delta table; no rows if it does not exist or has other columns."""
    known = lake.version(table) is not None
    columns = [field.name for field in lake.open(table).schema().fields] if known else []
    locations = lake.file_uris(table) if columns == schema.names else []
    return _make_file_frame(spark, locations).mapInArrow(without_zip_rescan(_read_rows), from_arrow_schema(schema))


def _read_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for location in _iterate_locations(batches):
        filesystem, path = resolve(location)
        with filesystem.open_input_file(path) as file:
            yield from parquet.ParquetFile(file).iter_batches()


def write_delta(rows: DataFrame, count: int, lake: Lake, table: str, schema: pa.Schema) -> int:
    """Replace a table of the lake by the rows of a frame.

    Executors write the Parquet files; one commit then shows all of them or none. The driver sees file names only.

    Args:
        rows: Has the columns of the schema.
        count: Number of rows.

    Returns:
        The new version of the table.

    Raises:
        RuntimeError: The frame holds another number of rows.
    """
    parts = _write_parts(rows.select(*schema.names), count, lake, table, schema) if count else []
    written = sum(part.rows for part in parts)
    if written != count:
        raise RuntimeError(f"{table} would get {written:,} rows instead of {count:,}")
    return commit_parts(lake, table, schema, parts)


def _write_parts(rows: DataFrame, count: int, lake: Lake, table: str, schema: pa.Schema) -> list[Part]:
    gathered = rows.coalesce(1 + count // ROWS_PER_FILE).sortWithinPartitions(*schema.names[:3])
    write = without_zip_rescan(partial(_write_part, lake=lake, table=table, schema=schema))
    return [Part.from_row(part) for part in gathered.mapInArrow(write, "part string").collect()]


def _write_part(
    batches: Iterable[pa.RecordBatch], lake: Lake, table: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    part = write_part(lake, table, schema, batches)
    if part.rows:
        yield pa.RecordBatch.from_pylist([part.to_row()])


def _make_file_frame(spark: SparkSession, locations: Sequence[str]) -> DataFrame:
    """Return a frame of files that gives the executors one file per task."""
    files = spark.createDataFrame([(location,) for location in locations], "location string")
    return files.repartition(len(locations)) if len(locations) > 1 else files


def _iterate_locations(batches: Iterable[pa.RecordBatch]) -> Iterator[str]:
    for batch in batches:
        yield from batch.column("location").to_pylist()
