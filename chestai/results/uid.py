"""DICOM's unique identifiers."""

import re

_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_LONGEST = 64


def is_uid(text: str) -> bool:
    """Whether a text is a UID, PS3.5 Section 9.1."""
    return len(text) <= _LONGEST and _UID.fullmatch(text) is not None
