"""Delta tables written in parts by many processes: each writes a Parquet file, one commit then shows all of them.

A part that is never committed, because its task was repeated or its build died, is a file that no reader sees.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import Schema
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow import parquet

from chestai.clock import now
from chestai.lake.lake import Lake


@dataclass(frozen=True)
class Part:
    """A file of a table: its path below the table, its size in bytes, its rows, the values that it is filed under.

    nulls: per column that is not nested, how many rows have none.
    """

    name: str
    size: int
    rows: int
    partition: dict[str, str] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, str]:
        """As a row of a table, to be sent to who commits it."""
        return {"part": json.dumps(asdict(self))}

    @staticmethod
    def from_row(row: Any) -> "Part":
        """From anything that has the columns of `row`."""
        return Part(**json.loads(row["part"]))


def write_part(
    lake: Lake,
    table: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    partition: dict[str, str] | None = None,
    compression: str = "snappy",
) -> Part:
    """Write one Parquet file below a table, batch by batch, under a name that nobody else takes.

    Args:
        schema: of the file; batches are cast to it.
        partition: the values of the table's partition columns, which are not in the file.
        compression: of Parquet; with `none` there are no dictionaries either, so that reading is copying.
    """
    under = "".join(f"{column}={value}/" for column, value in (partition or {}).items())
    filesystem, root = lake.filesystem(table)
    filesystem.create_dir(f"{root}/{under}", recursive=True)
    name, rows = f"{under}{uuid.uuid4().hex}.parquet", 0
    nulls = {one.name: 0 for one in schema if not pa.types.is_nested(one.type)}
    with (
        filesystem.open_output_stream(f"{root}/{name}") as sink,
        parquet.ParquetWriter(sink, schema, compression=compression, use_dictionary=compression != "none") as writer,
    ):
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            rows += batch.num_rows
            for column in nulls:
                nulls[column] += batch[column].null_count
    return Part(name, filesystem.get_file_info(f"{root}/{name}").size, rows, partition or {}, nulls)


def commit(lake: Lake, table: str, schema: pa.Schema, parts: Sequence[Part], partition_by: Sequence[str] = ()) -> int:
    """Replace a table's content by these parts, in one atomic commit, and return its new version.

    Args:
        schema: of the table, partition columns included.
    """
    actions = [
        AddAction(
            path=part.name,
            size=part.size,
            partition_values=dict(part.partition),
            modification_time=int(now().timestamp() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": part.rows, "nullCount": part.nulls}),
        )
        for part in parts
    ]
    create_table_with_add_actions(
        lake.uri(table), Schema.from_arrow(schema), actions, mode="overwrite", partition_by=list(partition_by) or None
    )
    version = lake.version(table)
    assert version is not None
    return version
