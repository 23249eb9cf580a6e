"""A page as GitHub Markdown: the same content as its HTML, pictures in words."""

import re
from collections.abc import Sequence

from chestai.notice import RESEARCH_USE
from chestai.pages.page import Cell, Figure, Gallery, Note, Page, Section, Table


def markdown(page: Page) -> str:
    """The text of a page: tables as tables, a figure as its alt text and caption. Text of unknown origin is escaped."""
    blocks = [f"# {escaped(page.title)}", escaped(page.subtitle)]
    if page.banner:
        blocks.append(f"> **{escaped(page.banner)}**")
    if page.facts:
        blocks.append(_grid(["", ""], page.facts))
    blocks.append(f"*{RESEARCH_USE}*")
    for section in page.sections:
        blocks += _section(section)
    return "\n\n".join(block for block in blocks if block) + "\n"


def escaped(text: str) -> str:
    """Text on one line that Markdown shows as it is: no markup, no HTML, no links."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_~|$])", r"\\\1", text)
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)  # a bracket alone is no link: intervals stay legible
    return re.sub(r"^([#+=-]|\d+(?=[.)](?:\s|$)))", lambda found: _unlisted(found[1]), text)


def _unlisted(start: str) -> str:
    """What would begin a heading or a list."""
    return f"{start}\\" if start.isdigit() else f"\\{start}"


def _section(section: Section) -> list[str]:
    blocks = [f"## {escaped(section.title)}"]
    for part in section.parts:
        blocks += _part(part)
    return blocks


def _part(part: Note | Table | Figure | Gallery) -> list[str]:
    match part:
        case Note():
            return [escaped(part.text)]
        case Table():
            return [f"**{escaped(part.caption)}**", _grid(part.columns, part.rows, numbers=not part.prose)]
        case Figure():
            return [f"*Figure: {escaped(part.alt)}*", escaped(part.caption)]
        case Gallery():
            pictures = [f"- {escaped(', '.join([picture.alt, *picture.lines]))}" for picture in part.pictures]
            return [f"**{escaped(part.title)}**", escaped(part.note), "\n".join(pictures)]


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], numbers: bool = True) -> str:
    """numbers: all columns but the first are set flush right."""
    rules = [":--", *["--:" if numbers else ":--"] * (len(columns) - 1)]
    lines = [[escaped(column) for column in columns], rules, *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: str | Cell) -> str:
    if isinstance(value, str):
        return escaped(value)
    note = value.note if value.note.startswith("[") or not value.note else f"({value.note})"
    return escaped(f"{value.text} {note}")
