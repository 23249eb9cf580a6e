"""Texts from outside, made to fit the value representations of DICOM (PS3.5 Section 6.2)."""

import unicodedata

LONG_STRING, SHORT_STRING = 64, 16  # characters of LO and SH


def clean_text(text: str, limit: int) -> str:
    """A text as one value of at most `limit` characters: no control characters, no backslash, no space at its ends."""
    return _strip_controls(text.replace("\\", "/"))[:limit].strip()


def clean_name(text: str) -> str:
    """A person name as one PN: at most three groups of five components, each group of at most 64 characters."""
    groups = _strip_controls(text.replace("\\", " ")).split("=")[:3]
    return "=".join("^".join(group.split("^")[:5])[:LONG_STRING].strip() for group in groups).rstrip("=")


def _strip_controls(text: str) -> str:
    """Drops control characters and lone surrogates, which no character set holds; line breaks become spaces."""
    return "".join(char for char in " ".join(text.split()) if unicodedata.category(char) not in ("Cc", "Cs"))
