"""What a check of a build's sanity has to say about its data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Remark:
    """A remark about the images of a build.

    Attributes:
        text: One line, with counts and the key of the limit.
        warns: Whether something may be wrong; otherwise it is for the record.
        examples: Image IDs. Those of a group belong together, such as a film and its copy.
    """

    text: str
    warns: bool
    examples: tuple[tuple[str, ...], ...] = ()

    def to_row(self) -> dict[str, Any]:
        """Returns the remark as plain values."""
        return asdict(self)

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> "Remark":
        """Restores a remark from plain values."""
        return Remark(row["text"], row["warns"], tuple(map(tuple, row["examples"])))
