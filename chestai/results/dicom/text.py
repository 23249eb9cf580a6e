"""Texts from outside, made to fit the value representations of DICOM (PS3.5 Section 6.2)."""

from chestai.results.text import clean

LONG_STRING, SHORT_STRING = 64, 16  # characters of LO and SH


def clean_text(text: str, limit: int) -> str:
    """A text as one value of at most `limit` characters: no control characters, no backslash, no space at its ends."""
    return _join_lines(text.replace("\\", "/"))[:limit].strip()


def clean_name(text: str) -> str:
    """A person name as one PN: at most three groups of five components, each group of at most 64 characters."""
    groups = _join_lines(text.replace("\\", " ")).split("=")[:3]
    return "=".join("^".join(group.split("^")[:5])[:LONG_STRING].strip() for group in groups).rstrip("=")


def _join_lines(text: str) -> str:
    """Drops characters that no character set holds; blanks and line breaks become one space each."""
    return " ".join(clean(text).split())
