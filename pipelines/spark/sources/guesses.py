"""What a source does not say and the ETL took for granted: shown to the user, with the setting that settles it."""

from collections.abc import Iterable
from dataclasses import dataclass

from chestai.errors import UserError

MAX_LOST = 0.1  # of a source's files


@dataclass(frozen=True)
class Guess:
    """Something guessed.

    Attributes:
        text: What was guessed, with counts, in one line.
        key: The setting that settles it.
        lost: Files that are not read because of it.
    """

    text: str
    key: str
    lost: int = 0

    @property
    def line(self) -> str:
        """The guess and its key, for summaries and pages."""
        return f"{self.text} ({self.key})"


def check_guesses(guesses: Iterable[Guess], files: int) -> None:
    """Check that no guess loses more than a tenth of a source's files.

    Raises:
        UserError: One does; the message names the key that settles it.
    """
    for guess in guesses:
        if guess.lost > MAX_LOST * files:
            raise UserError(
                f"{guess.text}: {guess.lost:,} of {files:,} files would be left out, which is too many for a guess: "
                f"settle it with {guess.key}"
            )
