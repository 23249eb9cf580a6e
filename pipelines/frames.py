"""Between Spark frames and everything else: text files and Arrow tables in, Delta tables out."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import ray
from pyarrow import fs, parquet
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from ray.data import SaveMode

from chestai.lake import SCHEMAS, Lake

ROWS_A_FILE = 200_000  # a reader wants few, large files


def from_arrow(spark: SparkSession, rows: pa.Table) -> DataFrame:
    """An Arrow table as a Spark frame of the same columns."""
    return spark.createDataFrame(rows.to_pandas(), from_arrow_schema(rows.schema))


def read_lines(spark: SparkSession, locations: Sequence[str]) -> DataFrame:
    """The lines of text files that are not blank: location, line (from 1), text without its end (LF or CRLF).

    Read by pyarrow in the executors, not by Spark's own reader: so rows know their line, and an object store
    needs no Hadoop connector.
    """
    schema = "location string, line int, text string"
    files = spark.createDataFrame([(location,) for location in locations], "location string")
    return files.mapInArrow(_lines, schema).repartition(spark.sparkContext.defaultParallelism)


def _lines(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for location in batch.column("location").to_pylist():
            filesystem, path = fs.FileSystem.from_uri(location)
            with filesystem.open_input_stream(path) as stream:
                text = stream.read().decode("utf-8-sig", errors="replace")
            lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
            numbers = pa.array([number for number, _ in lines], pa.int32())
            texts = pa.array([line for _, line in lines], pa.string())
            where = pa.array([location] * len(lines), pa.string())
            yield pa.RecordBatch.from_arrays([where, numbers, texts], ["location", "line", "text"])


def to_delta(rows: DataFrame, count: int, lake: Lake, table: str) -> int:
    """Replace a table of the lake by the frame's rows and return the table's new version.

    Executors hand their rows to Ray Data, whose tasks write the Parquet files; one Delta commit then shows all of them
    or none. The driver sees file names only.

    Args:
        rows: has the columns of the table's contract.
        count: how many rows there are.

    Raises:
        RuntimeError: the frame holds another number of rows.
    """
    schema = SCHEMAS[table]
    if not count:  # `write_delta` knows no schema for a table without rows
        return lake.write(table, schema.empty_table())
    files = 1 + count // ROWS_A_FILE
    sorted_rows = rows.select(*schema.names).coalesce(files).sortWithinPartitions(*schema.names[:3])
    packed = sorted_rows.mapInArrow(_packer(schema), "packed binary")
    dataset = ray.data.from_spark(packed, override_num_blocks=files)
    dataset = dataset.map_batches(_unpack, batch_size=None, batch_format="pyarrow").materialize()
    if dataset.count() != count:
        raise RuntimeError(f"{table} would get {dataset.count():,} rows instead of {count:,}")
    dataset.write_delta(lake.uri(table), mode=SaveMode.OVERWRITE)
    version = lake.version(table)
    assert version is not None
    return version


def _packer(schema: pa.Schema) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Each batch as one value, Parquet bytes, with the contract's types and nullability whatever Spark deduced.

    As they are, rows would reach Ray in Java's Arrow, which gives a column of nothing but empty lists no offsets: Ray
    cannot serialise that. What is read from Parquet is always whole.
    """

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.Table.from_batches([batch]).cast(schema), sink)
            yield pa.RecordBatch.from_arrays([pa.array([sink.getvalue().to_pybytes()], pa.binary())], ["packed"])

    return pack


def _unpack(packed: pa.Table) -> pa.Table:
    return pa.concat_tables(parquet.read_table(pa.BufferReader(value.as_py())) for value in packed["packed"])
