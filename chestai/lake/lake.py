"""The lake: one root URI with Delta tables and reports below it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyarrow import fs

from chestai.errors import UserError
from chestai.labels.demographics import LATERAL
from chestai.lake.files import read_bytes
from chestai.lake.schemas import FILE_MISSING, IMAGES, LABELS, SCHEMAS, STATS
from chestai.lake.snapshot import Snapshot


@dataclass(frozen=True)
class Lake:
    """Tables and reports below one root: a local folder or an object store prefix such as ``s3://bucket/prefix``."""

    root: str

    @property
    def local(self) -> bool:
        """Whether the root is a local folder."""
        return "://" not in self.root

    def uri(self, *parts: str) -> str:
        """The absolute location of something below the root."""
        root = os.path.abspath(os.path.expanduser(self.root)) if self.local else self.root.rstrip("/")
        return "/".join([root, *parts])

    def filesystem(self, *parts: str) -> tuple[fs.FileSystem, str]:
        """The pyarrow filesystem of the lake and the path of `uri(*parts)` on it."""
        filesystem, path = fs.FileSystem.from_uri(self.uri(*parts))
        return filesystem, path

    def version(self, table: str) -> int | None:
        """The newest version of a table, or None. Raises `UserError` like `open`."""
        try:
            return self._table(table).version()
        except TableNotFoundError:
            return None

    def open(self, table: str, version: int | None = None) -> DeltaTable:
        """Opens a Delta table, at a version or the newest.

        Raises:
            UserError: There is no such table, or the root cannot be reached.
        """
        try:
            return self._table(table, version)
        except TableNotFoundError as error:
            raise UserError(f"no table {table} in the lake {self.root}") from error

    def _table(self, table: str, version: int | None = None) -> DeltaTable:
        try:
            self.filesystem()  # pyarrow knows fewer kinds of URI than deltalake, which would report a missing table
            return DeltaTable(self.uri(table), version=version)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"lake={self.root} cannot be opened: {_cause(error)}") from error

    def read(
        self,
        table: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """Reads a table; `where` is pushed down to the files.

        Raises:
            UserError: There is no such table.
        """
        dataset: pds.Dataset = self.open(table, version).to_pyarrow_dataset()
        return dataset.to_table(columns=list(columns) if columns is not None else None, filter=where)

    def write(self, table: str, rows: pa.Table, mode: Literal["append", "overwrite"] = "overwrite") -> int:
        """Writes rows as one atomic commit and returns the new version."""
        schema_mode: Literal["overwrite"] | None = "overwrite" if mode == "overwrite" else None
        write_deltalake(self.uri(table), rows, mode=mode, schema_mode=schema_mode)
        version = self.version(table)
        assert version is not None
        return version

    def publish(self, snapshot: Snapshot) -> None:
        """Makes a build visible: appends its row to `gold/stats`, after all other tables."""
        self.write(STATS, pa.Table.from_pylist([snapshot.row()], schema=SCHEMAS[STATS]), mode="append")

    def history(self) -> list[Snapshot]:
        """All builds, oldest first; empty for a new lake."""
        if self.version(STATS) is None:
            return []
        rows = self.read(STATS).sort_by("built_at").to_pylist()
        return [Snapshot.from_row(row) for row in rows]

    def snapshot(self, snapshot_id: str | None = None) -> Snapshot:
        """A build by ID, or the newest.

        Raises:
            UserError: The lake holds no (such) build.
        """
        builds = self.history()
        if not builds:
            raise UserError(f"the lake {self.root} holds no build: run `python -m pipelines.etl lake={self.root}`")
        if snapshot_id is None:
            return builds[-1]
        for build in reversed(builds):
            if build.snapshot_id == snapshot_id:
                return build
        raise UserError(f"the lake {self.root} holds no snapshot {snapshot_id}: it has {builds[-1].snapshot_id}")

    def gold(self, snapshot: Snapshot, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads a gold table of a snapshot, sorted by image_id so that its order does not depend on the build."""
        rows = self.read(table, snapshot.versions[table], columns)
        return rows.sort_by("image_id") if "image_id" in rows.column_names else rows

    def labelled(self, snapshot: Snapshot, columns: Sequence[str]) -> pa.Table:
        """Joins columns of `gold/images` with the `targets` of `gold/labels`, sorted by image_id."""
        images = self.gold(snapshot, IMAGES, sorted({"image_id", *columns}))
        labels = self.gold(snapshot, LABELS, ["image_id", "targets"])
        if not images["image_id"].equals(labels["image_id"]):
            raise RuntimeError(f"{IMAGES} and {LABELS} of snapshot {snapshot.snapshot_id} name different images")
        return images.append_column("targets", labels["targets"])

    def usable(self, snapshot: Snapshot, columns: Sequence[str]) -> pa.Table:
        """`labelled`, without the images that are not for a network, see `unusable_reason`."""
        rows = self.labelled(snapshot, ["path", "view", *columns])
        return rows.filter(pc.is_null(unusable_reason(rows)))

    def write_bytes(self, content: bytes, *parts: str) -> str:
        """Writes a file below the root and returns its location."""
        filesystem, path = self.filesystem(*parts)
        filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return self.uri(*parts)

    def write_report(self, stage: str, report: Mapping[str, Any]) -> str:
        """Writes `reports/<stage>.json` and returns its location."""
        return self.write_bytes(json.dumps(report, indent=2, default=str).encode(), "reports", f"{stage}.json")

    def read_report(self, stage: str) -> dict[str, Any] | None:
        """The last report of a stage, or None."""
        try:
            return dict(json.loads(read_bytes(self.uri("reports", f"{stage}.json"))))
        except FileNotFoundError:
            return None


def unusable_reason(images: pa.Table) -> pa.Array:
    """Per row of gold/images (path, view), why it is not for a network: file_missing, lateral_view or null."""
    missing = pc.is_null(images["path"])
    lateral = pc.fill_null(pc.equal(images["view"], LATERAL), False)
    return pc.if_else(missing, FILE_MISSING, pc.if_else(lateral, "lateral_view", pa.scalar(None, pa.string())))


def _cause(error: Exception) -> str:
    """An error as one line; of a server's XML only code and message, because the rest may hold keys."""
    match = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", str(error), re.DOTALL)
    cause = ": ".join(match.groups()) if match else re.sub(r"\x1b\[\d*m", "", str(error)).split("↳")[-1].strip()
    insecure = "; set AWS_ALLOW_HTTP=true if AWS_ENDPOINT_URL is http" if "scheme is not allowed" in cause else ""
    return " ".join(cause.split()) + insecure
