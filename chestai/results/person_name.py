"""Person names of DICOM, taken apart."""

from dataclasses import dataclass
from typing import Literal

from chestai.results.text import shorten

Representation = Literal["alphabetic", "ideographic", "phonetic"]

_REPRESENTATIONS: tuple[Representation, ...] = ("alphabetic", "ideographic", "phonetic")
_LONGEST = 64  # characters of a component group, PS3.5 Section 6.2


@dataclass(frozen=True)
class PersonName:
    """A person's name in one script. Parts are empty where the header says nothing."""

    representation: Representation
    family: str = ""
    given: str = ""
    middle: str = ""
    prefix: str = ""
    suffix: str = ""

    @property
    def full(self) -> str:
        """For a reader: given name first."""
        parts = (self.prefix, self.given, self.middle, self.family, self.suffix)
        return " ".join(part for part in parts if part)


def parse_names(text: str) -> list[PersonName]:
    """Takes apart a person name, PS3.5 Section 6.2.1: up to three groups (`=`) of up to five components (`^`).

    Groups without a name are left out; components after the fifth are ignored, and over-long ones cut.
    """
    names = []
    for representation, group in zip(_REPRESENTATIONS, text.split("="), strict=False):
        parts = [shorten(part, _LONGEST) for part in group.split("^")[:5]]
        if any(parts):
            names.append(PersonName(representation, *parts))
    return names
