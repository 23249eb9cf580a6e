"""Receivers quote what they got in their errors; what is a patient's is taken out before anybody logs it."""

import re
from collections.abc import Iterable

HIDDEN = "[…]"
LONGEST = 500  # characters of a receiver's text that are kept
_SHORT = 4  # characters below which a value is hidden as a whole word only


def redact(text: str, values: Iterable[str]) -> str:
    """A receiver's text in one line of at most `LONGEST` characters, without these values, whatever their case."""
    line = " ".join(text.split())
    for value in sorted({one.strip() for one in values}, key=len, reverse=True):
        if value:
            pattern = re.escape(" ".join(value.split()))
            line = re.sub(pattern if len(value) >= _SHORT else rf"(?<!\w){pattern}(?!\w)", HIDDEN, line, flags=re.I)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
