"""The lake: Delta tables and reports below one root URI."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyarrow import fs

from chestai.errors import UserError
from chestai.labels.demographics import LATERAL
from chestai.lake.files import read_bytes, resolve
from chestai.lake.schemas import FILE_MISSING, IMAGES, LABELS, SCHEMAS, STATS
from chestai.lake.snapshot import Snapshot

# What the Delta library takes for something else, or nothing: an escape, a separator, an address, a control character.
DELTA_CANNOT_OPEN = re.compile(r"%[0-9A-Fa-f]{2}|[\\\[\]\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Lake:
    """Tables and reports below one root: a local folder or an object store prefix such as `s3://bucket/prefix`."""

    root: str

    @property
    def local(self) -> bool:
        """Returns whether the root is a local folder."""
        return "://" not in self.root

    def uri(self, *parts: str) -> str:
        """Returns the absolute location of a path below the root."""
        root = os.path.abspath(os.path.expanduser(self.root)) if self.local else self.root.rstrip("/")
        return "/".join([root, *parts])

    def filesystem(self, *parts: str) -> tuple[fs.FileSystem, str]:
        """Returns the pyarrow filesystem of the lake, and the path of `uri(*parts)` on it."""
        return resolve(self.uri(*parts))

    def delta_uri(self, table: str) -> str:
        """Returns the location of a table as the Delta library takes it.

        Raises:
            UserError: The library cannot open a folder of this name.
        """
        if not self.local:
            return self.uri(table)
        folder = self.uri(table)
        refused = DELTA_CANNOT_OPEN.search(folder)
        if refused:
            raise UserError(f"lake={self.root}: Delta tables cannot lie below a name with {refused[0]!r}: rename it")
        return f"file://{quote(folder)}"

    def sqlite_url(self, *parts: str) -> str:
        """Returns the URL of an SQLite file below a local root.

        Only what ends a path or is a template for somebody is escaped: MLflow makes a folder of the escaped name too.
        """
        return "sqlite:///" + re.sub(r"[?{}]", lambda match: quote(match[0]), self.uri(*parts))

    def file_uris(self, table: str) -> list[str]:
        """Returns the absolute locations of the files of a table's newest version.

        Raises:
            UserError: There is no such table, or the root cannot be reached.
        """
        actions = pa.table(self.open(table).get_add_actions())
        return [f"{self.uri(table)}/{path}" for path in actions["path"].to_pylist()]

    def version(self, table: str) -> int | None:
        """Returns the newest version of a table, or None if there is no such table.

        Raises:
            UserError: The root cannot be reached.
        """
        try:
            return self._table(table).version()
        except TableNotFoundError:
            return None

    def open(self, table: str, version: int | None = None) -> DeltaTable:
        """Opens a Delta table at a version, by default the newest.

        Raises:
            UserError: There is no such table, or the root cannot be reached.
        """
        try:
            return self._table(table, version)
        except TableNotFoundError as error:
            raise UserError(f"no table {table} in the lake {self.root}") from error

    def _table(self, table: str, version: int | None = None) -> DeltaTable:
        try:
            self.filesystem()  # deltalake accepts more URIs than pyarrow, and would report a missing table
            return DeltaTable(self.delta_uri(table), version=version)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"lake={self.root} cannot be opened: {_summarise_cause(error)}") from error

    def read(
        self,
        table: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """Reads a table. The filter `where` is pushed down to the files.

        Raises:
            UserError: There is no such table, or the root cannot be reached.
        """
        dataset: pds.Dataset = self.open(table, version).to_pyarrow_dataset()
        return dataset.to_table(columns=list(columns) if columns is not None else None, filter=where)

    def write(self, table: str, rows: pa.Table, mode: Literal["append", "overwrite"] = "overwrite") -> int:
        """Writes rows as one atomic commit and returns the new version."""
        schema_mode: Literal["overwrite", "merge"] = "overwrite" if mode == "overwrite" else "merge"
        write_deltalake(self.delta_uri(table), rows, mode=mode, schema_mode=schema_mode)
        version = self.version(table)
        assert version is not None
        return version

    def publish(self, snapshot: Snapshot) -> None:
        """Makes a build visible by appending its row to `gold/stats`. Call it after writing all other tables."""
        self.write(STATS, pa.Table.from_pylist([snapshot.to_row()], schema=SCHEMAS[STATS]), mode="append")

    def list_snapshots(self) -> list[Snapshot]:
        """Returns the snapshots of all builds, oldest first; none for a new lake."""
        if self.version(STATS) is None:
            return []
        rows = self.read(STATS).sort_by("built_at").to_pylist()
        return [Snapshot.from_row(row) for row in rows]

    def find_snapshot(self, snapshot_id: str | None = None) -> Snapshot:
        """Finds a snapshot by ID, by default the newest.

        Raises:
            UserError: The lake has no snapshot, or none with this ID.
        """
        builds = self.list_snapshots()
        if not builds:
            raise UserError(f"the lake {self.root} holds no build: run `python -m pipelines.etl lake={self.root}`")
        if snapshot_id is None:
            return builds[-1]
        for build in reversed(builds):
            if build.snapshot_id == snapshot_id:
                return build
        raise UserError(f"the lake {self.root} holds no snapshot {snapshot_id}: it has {builds[-1].snapshot_id}")

    def read_gold(self, snapshot: Snapshot, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads a gold table of a snapshot, sorted by image_id so that the order does not depend on the build."""
        rows = self.read(table, snapshot.versions[table], columns)
        return rows.sort_by("image_id") if "image_id" in rows.column_names else rows

    def read_labelled(self, snapshot: Snapshot, columns: Sequence[str]) -> pa.Table:
        """Joins columns of `gold/images` with the `targets` of `gold/labels`, sorted by image_id."""
        images = self.read_gold(snapshot, IMAGES, sorted({"image_id", *columns}))
        labels = self.read_gold(snapshot, LABELS, ["image_id", "targets"])
        if not images["image_id"].equals(labels["image_id"]):
            raise RuntimeError(f"{IMAGES} and {LABELS} of snapshot {snapshot.snapshot_id} name different images")
        return images.append_column("targets", labels["targets"])

    def read_usable(self, snapshot: Snapshot, columns: Sequence[str]) -> pa.Table:
        """Reads the rows of `read_labelled` that a network can use, see `find_unusable_reasons`."""
        rows = self.read_labelled(snapshot, ["path", "view", *columns])
        return rows.filter(pc.is_null(find_unusable_reasons(rows)))

    def write_bytes(self, content: bytes, *parts: str) -> str:
        """Writes a file below the root and returns its location."""
        filesystem, path = self.filesystem(*parts)
        filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return self.uri(*parts)

    def write_report(self, stage: str, report: Mapping[str, Any]) -> str:
        """Writes the report of a stage to `reports/<stage>.json` and returns its location."""
        return self.write_bytes(json.dumps(report, indent=2, default=str).encode(), "reports", f"{stage}.json")

    def read_report(self, stage: str) -> dict[str, Any] | None:
        """Reads the latest report of a stage; None if there is none."""
        try:
            return dict(json.loads(read_bytes(self.uri("reports", f"{stage}.json"))))
        except FileNotFoundError:
            return None


def find_unusable_reasons(images: pa.Table) -> pa.Array:
    """Finds why each row of gold/images cannot be used by a network: `file_missing`, `lateral_view` or null.

    Args:
        images: Rows with the columns `path` and `view`.
    """
    missing = pc.is_null(images["path"])
    lateral = pc.fill_null(pc.equal(images["view"], LATERAL), False)
    return pc.if_else(missing, FILE_MISSING, pc.if_else(lateral, "lateral_view", pa.scalar(None, pa.string())))


def _summarise_cause(error: Exception) -> str:
    """Summarises an error in one line. Of a server's XML it keeps code and message only: the rest may contain keys."""
    match = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", str(error), re.DOTALL)
    cause = ": ".join(match.groups()) if match else re.sub(r"\x1b\[\d*m", "", str(error)).split("↳")[-1].strip()
    insecure = "; set AWS_ALLOW_HTTP=true if AWS_ENDPOINT_URL is http" if "scheme is not allowed" in cause else ""
    return " ".join(cause.split()) + insecure
