"""Text from a DICOM header made fit for other formats: without the characters that they cannot carry."""

import unicodedata

KEPT = "\n\t"
DROPPED = {"Cc", "Cs"}  # control characters, and halves of surrogate pairs, which UTF-8 cannot encode


def clean(text: str) -> str:
    """The text with `\\n` for every line break, without other control characters and without spaces around it."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (sign for sign in lines if sign in KEPT or unicodedata.category(sign) not in DROPPED)
    return "".join(kept).strip()


def shorten(text: str, most: int) -> str:
    """Cleans a text and cuts it to `most` characters. For descriptions, never for identifiers: a cut one is another."""
    cleaned = clean(text)
    return cleaned if len(cleaned) <= most else f"{cleaned[: most - 1]}…"
