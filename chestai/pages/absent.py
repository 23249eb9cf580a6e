"""Where a section has nothing to show: why."""

from chestai.evidence import Evidence
from chestai.pages.page import Note


def reason(evidence: Evidence, name: str) -> str:
    """Why a section could not be measured; `name` is its field of the evidence."""
    return evidence.missing.get(name, "no reason was recorded").rstrip(".")


def absent(evidence: Evidence, name: str) -> list[Note]:
    """The one part of such a section."""
    return [Note(f"Not measured: {reason(evidence, name)}.")]
