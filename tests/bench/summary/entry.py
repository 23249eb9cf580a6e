"""An entry of the page: what is said of one figure, and where it comes from."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.summary.results import Results
from tests.bench.summary.words import NONE


@dataclass(frozen=True)
class Figures:
    """What the results say of an entry.

    Attributes:
        result: What was measured.
        peer: Its ratio to another way to do the same.
        limit: The target of the project, and whether it is met; or its ratio to what the hardware leaves room for.
    """

    result: str
    peer: str = NONE
    limit: str = NONE


@dataclass(frozen=True)
class Entry:
    """A row of the page.

    Attributes:
        what: What is measured, in words.
        script: The module in tests/bench.
        read: Reads the figures. Raises `MissingError` where the results lack something.
        file: The results, if they are not named after the script.
    """

    what: str
    script: str
    read: Callable[[Results], Figures]
    file: str = ""

    @property
    def source(self) -> str:
        """The name of the results."""
        return self.file or self.script
