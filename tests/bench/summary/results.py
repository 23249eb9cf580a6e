"""Reads the results of benchmarks: the CSV files that `tests.bench.record` writes."""

import csv
import statistics
from dataclasses import dataclass
from pathlib import Path


class MissingError(Exception):
    """A file, a row or a column that is asked for is not among the results."""


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file, at least one.

    Attributes:
        name: The file, without its suffix.
    """

    name: str
    rows: tuple[dict[str, str], ...]

    def where(self, **wanted: object) -> "Table":
        """The rows that have these values."""
        rows = tuple(row for row in self.rows if all(row.get(name) == str(value) for name, value in wanted.items()))
        if not rows:
            raise MissingError(f"{self.name}.csv has no row where {_describe(wanted)}")
        return Table(self.name, rows)

    def texts(self, column: str) -> list[str]:
        """The cells of a column that are not empty."""
        cells = [row[column] for row in self.rows if row.get(column)]
        if not cells:
            raise MissingError(f"{self.name}.csv has nothing in the column {column}")
        return cells

    def values(self, column: str) -> list[float]:
        """The numbers of a column, without its empty cells."""
        return [float(cell) for cell in self.texts(column)]

    def median(self, column: str) -> float:
        return statistics.median(self.values(column))

    def least(self, column: str) -> "Table":
        """The rows where a number is least."""
        return self._rows_with(column, min(self.values(column)))

    def most(self, column: str) -> "Table":
        """The rows where a number is greatest."""
        return self._rows_with(column, max(self.values(column)))

    def _rows_with(self, column: str, value: float) -> "Table":
        return Table(self.name, tuple(row for row in self.rows if row.get(column) and float(row[column]) == value))


@dataclass(frozen=True)
class Results:
    """The folder of all results."""

    folder: Path

    def __getitem__(self, name: str) -> Table:
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise MissingError(f"there is no {path.name}")
        with path.open(newline="") as file:
            rows = tuple(csv.DictReader(file))
        if not rows:
            raise MissingError(f"{path.name} has no rows")
        return Table(name, rows)


def _describe(wanted: dict[str, object]) -> str:
    return " and ".join(f"{name} is {value}" for name, value in wanted.items())
