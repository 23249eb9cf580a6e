"""Writes Delta tables in parts: many processes write one Parquet file each, and one commit makes all of them visible.

A part stays invisible if it is never committed because its task was repeated or its build failed.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
from deltalake import Schema
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow import parquet

from chestai.clock import now
from chestai.lake.lake import Lake


@dataclass(frozen=True)
class Part:
    """A Parquet file of a table.

    Attributes:
        name: Path below the table.
        size: Size in bytes.
        partition: Values of the partition columns.
        nulls: Number of nulls in each column that is not nested.
    """

    name: str
    size: int
    rows: int
    partition: dict[str, str] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=dict)

    def to_row(self) -> dict[str, str]:
        """Returns the part as a table row, to send to the process that commits it."""
        return {"part": json.dumps(asdict(self))}

    @staticmethod
    def from_row(row: Any) -> "Part":
        """Restores a part from a row of `to_row`."""
        return Part(**json.loads(row["part"]))


def write_part(
    lake: Lake,
    table: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    partition: dict[str, str] | None = None,
    compression: str = "snappy",
) -> Part:
    """Writes batches to one Parquet file with a unique name below a table.

    Args:
        schema: Schema of the file, to which batches are cast.
        partition: Values of the table's partition columns, which the file does not contain.
        compression: Parquet compression. `none` also turns dictionaries off, so that reading is a plain copy.
    """
    under = "".join(f"{column}={value}/" for column, value in (partition or {}).items())
    filesystem, root = lake.filesystem(table)
    filesystem.create_dir(f"{root}/{under}", recursive=True)
    name, rows = f"{under}{uuid.uuid4().hex}.parquet", 0
    nulls = {column.name: 0 for column in schema if not pa.types.is_nested(column.type)}
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


def commit_parts(
    lake: Lake,
    table: str,
    schema: pa.Schema,
    parts: Sequence[Part],
    partition_by: Sequence[str] = (),
    mode: Literal["append", "overwrite"] = "overwrite",
) -> int:
    """Commits these parts to a table in one atomic commit, and returns the new version.

    Args:
        schema: Schema of the table, including partition columns.
        mode: Whether the parts replace the content of the table or are added to it. The table is created if needed.
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
    uri, columns = lake.delta_uri(table), Schema.from_arrow(schema)
    if mode == "append" and lake.version(table) is not None:
        lake.open(table).create_write_transaction([*actions], "append", columns, list(partition_by) or None)
    else:
        create_table_with_add_actions(uri, columns, actions, mode="overwrite", partition_by=list(partition_by) or None)
    version = lake.version(table)
    assert version is not None
    return version
