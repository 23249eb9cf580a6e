"""How texts stand in an HL7 v2 message: separators, escapes, times (HL7 v2.5.1, Chapter 2, Sections 2.5 to 2.7)."""

import re
from collections.abc import Sequence
from datetime import date, datetime

from chestai.results.text import clean

FIELD, COMPONENT, REPETITION, ESCAPE, SUBCOMPONENT = "|^~\\&"
SEGMENT_END = "\r"

_ESCAPES = {
    ESCAPE: "\\E\\",
    FIELD: "\\F\\",
    COMPONENT: "\\S\\",
    SUBCOMPONENT: "\\T\\",
    REPETITION: "\\R\\",
    "\n": "\\.br\\",
}
_MEANINGS = {sequence: sign for sign, sequence in _ESCAPES.items()}
_SPECIAL = re.compile("[" + re.escape("".join(_ESCAPES)) + "]")
_SEQUENCE = re.compile(r"\\[^\\]*\\")
_HEX = re.compile(r"\\X((?:[0-9A-Fa-f]{2})+)\\")


def escape(text: str) -> str:
    """A text as the value of a field or component, without control characters; `\\.br\\` for line breaks."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], clean(text))


def unescape(value: str) -> str:
    """The inverse of `escape`, which also reads `\\Xdd..\\` (as UTF-8). Sequences without a meaning vanish."""
    return _SEQUENCE.sub(lambda found: _read_sequence(found[0]), value)


def _read_sequence(sequence: str) -> str:
    if digits := _HEX.fullmatch(sequence):
        return bytes.fromhex(digits[1]).decode(errors="replace")
    return _MEANINGS.get(sequence, "")


def join_components(*parts: str) -> str:
    """A field of escaped components, without empty ones at its end."""
    return COMPONENT.join(map(escape, parts)).rstrip(COMPONENT)


def join_segment(name: str, fields: dict[int, str]) -> str:
    """A segment of fields that are already escaped, by their numbers, which start at 1; all others are empty."""
    filled = {number: value for number, value in fields.items() if value}
    values: Sequence[str] = [filled.get(number, "") for number in range(1, max(filled, default=0) + 1)]
    return FIELD.join((name, *values))


def write_time(at: date | datetime | None) -> str:
    """A time stamp (TS): a date, or a time to the second with its zone if it has one; empty for None."""
    if at is None:
        return ""
    day = f"{at.year:04}{at:%m%d}"  # strftime does not pad a year
    return day + at.strftime("%H%M%S%z") if isinstance(at, datetime) else day
