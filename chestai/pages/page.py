"""A self-contained HTML page: one file that loads nothing, for wide and narrow screens, light and dark, and paper.

A page is sections, a section is parts: notes, tables, figures, galleries of small images. All text is escaped, so that
file names and table rows of unknown origin may be shown as they are.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from chestai.imaging.preprocess import Grey
from chestai.notice import RESEARCH_USE

JPEG_QUALITY = 82
DASH = "\u2013"  # an en dash, where there is no number
PALE, DEEP = (255, 255, 255), (8, 81, 156)  # the ends of a heat map's one hue
WHITE_TEXT = 0.7  # from this shade on, white has more contrast than ink


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    note: smaller, below the text. shade: 0 to 1, colours the cell. bar: 0 to 1, a bar of that length beside the text.
    """

    text: str
    note: str = ""
    shade: float | None = None
    bar: float | None = None

    @property
    def style(self) -> str:
        """The CSS of the shade: text turns white where it would be hard to read."""
        if self.shade is None:
            return ""
        shade = min(max(self.shade, 0.0), 1.0)
        red, green, blue = (round(pale + (deep - pale) * shade) for pale, deep in zip(PALE, DEEP, strict=True))
        return f"background:rgb({red},{green},{blue});color:{'#fff' if shade > WHITE_TEXT else '#1b2430'}"


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first cell of a row is its heading.

    dense: a heat map; the headings of its columns stand upright, and cells without a shade are set apart.
    prose: cells are sentences, that wrap.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    dense: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot as a `data:` URI; `alt` says in words what it shows."""

    kind: ClassVar[str] = "figure"
    image: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A small square image as a `data:` URI; None shows `alt` in its place.

    lines: the caption. boxes: left, top, width, height in percent of the side.
    """

    image: str | None
    alt: str
    lines: Sequence[str]
    boxes: Sequence[tuple[float, float, float, float]] = ()


@dataclass(frozen=True)
class Gallery:
    """Small images side by side."""

    kind: ClassVar[str] = "gallery"
    title: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A chapter of a page; `anchor` names it in links."""

    anchor: str
    title: str
    parts: Sequence[Note | Table | Figure | Gallery]


@dataclass(frozen=True)
class Page:
    """A whole page.

    facts: pairs of a name and a value, shown at the top. banner: what must not be overlooked; empty where nothing is.
    """

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    banner: str
    sections: Sequence[Section]


def render_html(page: Page) -> str:
    """The HTML text of a page."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(page=page, research_use=RESEARCH_USE)


def encode_svg(drawing: Drawing) -> str:
    """A matplotlib figure as a `data:` URI; the same figure gives the same text."""
    text = io.BytesIO()
    with rc_context({"svg.hashsalt": "chestai"}):
        drawing.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _build_data_uri("image/svg+xml", text.getvalue())


def encode_jpeg(grey: Grey) -> str:
    """`uint8` (H, W) as a `data:` URI."""
    _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return _build_data_uri("image/jpeg", data.tobytes())


def format_name(name: str) -> str:
    """A name of the code or of a finding as a person writes it: without underscores."""
    return name.replace("_", " ")


def format_number(value: object, digits: int = 0) -> str:
    """A number with thousands separators, a dash where there is none; other values as they are."""
    if isinstance(value, float):
        return f"{value:,.{digits}f}" if math.isfinite(value) else DASH
    return f"{value:,}" if isinstance(value, int) else str(value)


def format_percent(part: float, whole: float = 1.0, digits: int = 1) -> str:
    """A share in percent; a dash where there is no whole."""
    if not whole or not math.isfinite(part / whole):
        return DASH
    return f"{100 * part / whole:.{digits}f}%"


def _build_data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
