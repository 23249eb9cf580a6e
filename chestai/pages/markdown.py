"""A page as GitHub Markdown: the same content as the HTML, with pictures described in words."""

import re
from collections.abc import Sequence

from chestai import RESEARCH_USE
from chestai.pages.page import Cell, Figure, Gallery, Note, Page, Table


def render_markdown(page: Page) -> str:
    """Render a page: tables as tables, figures as their alt text and caption. All text is escaped."""
    blocks = [f"# {escape_markdown(page.title)}", escape_markdown(page.subtitle)]
    if page.banner:
        blocks.append(f"> **{escape_markdown(page.banner)}**")
    if page.facts:
        blocks.append(_render_grid(["", ""], page.facts))
    blocks.append(f"*{RESEARCH_USE}*")
    for section in page.sections:
        blocks.append(f"## {escape_markdown(section.title)}")
        for part in section.parts:
            blocks += _render_part(part)
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape_markdown(text: str) -> str:
    """Text on one line that Markdown shows literally: no markup, no HTML, no links."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_~|$])", r"\\\1", text)
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)  # other brackets make no link, and intervals stay legible
    text = re.sub(r"^([#+=-])", r"\\\1", text)  # would begin a heading or a list
    return re.sub(r"^(\d+)(?=[.)](?:\s|$))", r"\1\\", text)  # a numbered list


def _render_part(part: Note | Table | Figure | Gallery) -> list[str]:
    match part:
        case Note():
            return [escape_markdown(part.text)]
        case Table():
            return [
                f"**{escape_markdown(part.caption)}**",
                _render_grid(part.columns, part.rows, numbers=not part.prose),
            ]
        case Figure():
            return [f"*Figure: {escape_markdown(part.alt)}*", escape_markdown(part.caption)]
        case Gallery():
            pictures = [f"- {escape_markdown(', '.join([picture.alt, *picture.lines]))}" for picture in part.pictures]
            return [f"**{escape_markdown(part.title)}**", escape_markdown(part.note), "\n".join(pictures)]


def _render_grid(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], numbers: bool = True) -> str:
    """numbers: align all columns but the first to the right."""
    rules = [":--", *["--:" if numbers else ":--"] * (len(columns) - 1)]
    lines = [
        [escape_markdown(column) for column in columns],
        rules,
        *([_render_cell(value) for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _render_cell(value: str | Cell) -> str:
    if isinstance(value, str):
        return escape_markdown(value)
    note = value.note if value.note.startswith("[") or not value.note else f"({value.note})"
    return escape_markdown(f"{value.text} {note}")
