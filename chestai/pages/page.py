"""A self-contained HTML page: one file that loads nothing else, for desktop, phone, dark mode and print.

A page has sections, and a section has parts: notes, tables, figures, galleries of small images. All text is escaped, so
file names and table rows from unknown sources are safe to show.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from chestai import RESEARCH_USE
from chestai.imaging.preprocess import Grey

JPEG_QUALITY = 82
SYNTHETIC_IMAGES = "SYNTHETIC: computer-drawn phantoms, not X-rays of people."
SYNTHETIC_MODEL = "SYNTHETIC: the model was trained on computer-drawn phantoms, not on X-rays of people."
DASH = "\u2013"  # an en dash: shown instead of a missing number
PALE, DEEP = (255, 255, 255), (8, 81, 156)  # colours of shade 0 and 1
WHITE_TEXT = 0.7  # above this shade, white text has more contrast than dark text


@dataclass(frozen=True)
class Cell:
    """A table cell.

    note: small print after the text. shade: 0 to 1, background colour. bar: 0 to 1, length of a bar beside the text.
    """

    text: str
    note: str = ""
    shade: float | None = None
    bar: float | None = None

    @property
    def style(self) -> str:
        """CSS for the shade; text on a dark shade is white."""
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
    """Rows under a header; the first cell of each row is its heading.

    dense: a matrix of shaded cells with vertical column headings; cells without a shade are highlighted.
    prose: cells hold sentences and wrap.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    dense: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot as a `data:` URI; `alt` describes it in words."""

    kind: ClassVar[str] = "figure"
    image: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A small square image as a `data:` URI; if None, `alt` is shown instead.

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
    """A section of a page; links point to its `anchor`."""

    anchor: str
    title: str
    parts: Sequence[Note | Table | Figure | Gallery]


@dataclass(frozen=True)
class Page:
    """A whole page.

    facts: pairs of name and value, shown at the top. banner: a warning that must not be overlooked, or empty.
    """

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    banner: str
    sections: Sequence[Section]


def render_html(page: Page) -> str:
    """Render a page as HTML text."""
    return load_template("page.html.j2").render(page=page, research_use=RESEARCH_USE)


def load_template(name: str) -> Template:
    """Load a template of this folder; it escapes all text and fails on undefined names."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["dash"] = DASH
    return environment.get_template(name)


def encode_svg(drawing: Drawing) -> str:
    """Encode a matplotlib figure as a `data:` URI; equal figures give equal text."""
    text = io.BytesIO()
    with rc_context({"svg.hashsalt": "chestai"}):
        drawing.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return build_data_uri("image/svg+xml", text.getvalue())


def encode_jpeg(grey: Grey) -> str:
    """Encode `uint8` (H, W) as a `data:` URI."""
    _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return build_data_uri("image/jpeg", data.tobytes())


def build_data_uri(media_type: str, data: bytes) -> str:
    """Embed bytes in a `data:` URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def format_name(name: str) -> str:
    """A name from the code or of a finding, with spaces instead of underscores."""
    return name.replace("_", " ")


def format_number(value: object, digits: int = 0) -> str:
    """A number with thousands separators, or a dash if it is not finite; other values as text."""
    if isinstance(value, float):
        return f"{value:,.{digits}f}" if math.isfinite(value) else DASH
    return f"{value:,}" if isinstance(value, int) else str(value)


def format_percent(part: float, whole: float = 1.0, digits: int = 1) -> str:
    """A share in percent, or a dash if it is undefined."""
    if not whole or not math.isfinite(part / whole):
        return DASH
    return f"{100 * part / whole:.{digits}f}%"
