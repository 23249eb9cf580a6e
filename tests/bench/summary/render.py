"""Makes docs/benchmarks.md from results."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.bench.summary import paper
from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.machine import find_machine
from tests.bench.summary.results import MissingError, Results, Table
from tests.bench.summary.sections import images, inference, readers_page, report_text, search, serving, training

SECTIONS: dict[str, tuple[Entry, ...]] = {
    "Images and tables": images.ENTRIES,
    "Training and evaluation": training.ENTRIES,
    "Inference and scoring": inference.ENTRIES,
    "Endpoint and short runs": serving.ENTRIES,
    "Readers' page": readers_page.ENTRIES,
    "Report text": report_text.ENTRIES,
    "Search": search.ENTRIES,
}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown, from our own results
)

Read = TypeVar("Read")


@dataclass(frozen=True)
class Row:
    """An entry with its figures, and the results that they are from."""

    entry: Entry
    figures: Figures
    table: Table


@dataclass
class Reader:
    """Reads results, and notes what has to be left out because something is missing."""

    results: Results
    left_out: list[str] = field(default_factory=list)

    def read(self, what: str, read: Callable[[Results], Read]) -> Read | None:
        try:
            return read(self.results)
        except MissingError as error:
            self.left_out.append(f"{what}: {error}")
            return None

    def read_section(self, entries: tuple[Entry, ...]) -> list[Row]:
        rows = (self.read(entry.what, partial(read_row, entry)) for entry in entries)
        return [row for row in rows if row]


def read_row(entry: Entry, results: Results) -> Row:
    table = results[entry.source]
    table.texts("date")  # the page says when
    return Row(entry, entry.read(results), table)


def make_page(folder: Path) -> tuple[str, list[str]]:
    """The page of the results in a folder, and what had to be left out, each with the reason.

    Raises:
        MissingError: There is nothing to show.
    """
    reader = Reader(Results(folder))
    sections = {title: reader.read_section(entries) for title, entries in SECTIONS.items()}
    tables = {row.table.name: row.table for rows in sections.values() for row in rows}
    if not tables:
        raise MissingError(f"no results in {folder}")
    text = TEMPLATES.get_template("benchmarks.md.j2").render(
        sections={title: rows for title, rows in sections.items() if rows},
        machine=find_machine(list(tables.values())),
        paper=reader.read("Scoring larger corpora", paper.compute),
    )
    return text, reader.left_out
