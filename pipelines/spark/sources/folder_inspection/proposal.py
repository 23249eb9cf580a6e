"""A configuration to start from, for a folder that no known source reads: its best label table."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import yaml

from chestai.errors import UserError
from pipelines.data.files import InputFolder
from pipelines.spark.sources.folder_inspection.column_roles import ColumnRole, find_roles
from pipelines.spark.sources.label_table.reader import read_table

TABLES = ("*.csv", "*.tsv", "*.txt", "*.parquet", "*.jsonl", "*.json", "*.csv.gz", "*.tsv.gz", "*.csv.zip")
PEOPLE = ("image", "patient", "study", "view", "age", "sex", "split")


@dataclass(frozen=True)
class Proposal:
    """A label table of a folder, and what its columns may be.

    Attributes:
        repeats: Whether images have several rows.
    """

    table: str
    rows: int
    roles: tuple[ColumnRole, ...]
    repeats: bool

    @property
    def share(self) -> float:
        """Of the image files, those that the table names."""
        return max((role.share for role in self.roles), default=0.0)

    def find(self, role: str) -> list[ColumnRole]:
        return [column for column in self.roles if column.role == role]

    def to_settings(self, name: str, root: str) -> dict[str, object]:
        """Return the settings of `source=table` as plain values."""
        columns = {role: found[0].column for role in PEOPLE if (found := self.find(role))}
        labels: dict[str, object] = {}
        if findings := self.find("finding"):
            labels["columns"] = [column.column for column in findings]
        elif named := self.find("findings"):
            labels = {"column": named[0].column, "separator": named[0].separator}
        if self.repeats:
            labels["rows"] = "several"
        return {"name": name, "root": root, "tables": self.table, "columns": columns, "labels": labels}


def find_tables(folder: InputFolder, files: Sequence[str]) -> list[Proposal]:
    """Return the readable tables directly in a folder, those that name the most image files first."""
    found = []
    for name in folder.list_files():
        if any(fnmatch(name.lower(), pattern) for pattern in TABLES):
            try:
                frame = read_table(folder, name)
            except UserError:
                continue
            roles = tuple(find_roles(frame, files))
            repeats = any(frame[role.column].duplicated().any() for role in roles if role.role == "image")
            found.append(Proposal(name, len(frame), roles, repeats))
    return sorted(found, key=lambda proposal: -proposal.share)


def write_settings(settings: dict[str, object], base: str, about: str) -> str:
    """Return a file for conf/source/ that builds on another source."""
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
    return f"# {about}\ndefaults: [{base}, _self_]\n{text}"
