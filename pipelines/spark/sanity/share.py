"""A share with a limit: nothing, a warning, or the end of the build."""

from dataclasses import dataclass

from chestai.config.schema import Sanity
from chestai.errors import UserError
from chestai.lake.remark import Remark

EXAMPLES = 4  # groups of images to show


@dataclass(frozen=True)
class Share:
    """How many of the images or boxes are wrong.

    Attributes:
        what: Completes "3 of 100 ...".
        key: Name of the limit in the section `sanity`.
        advice: What to look at, an imperative.
        examples: Groups of image IDs, the worst first.
    """

    count: int
    total: int
    what: str
    key: str
    advice: str
    examples: tuple[tuple[str, ...], ...] = ()

    def judge(self, limits: Sanity) -> list[Remark]:
        """Return a warning if anything is wrong.

        Raises:
            UserError: The share is above its limit, and is one of `limits.min_count` or more.
        """
        if not self.count:
            return []
        limit = getattr(limits, self.key)
        text = f"{self.count:,} of {self.total:,} {self.what}"
        if self.total >= limits.min_count and self.count / self.total > limit:
            shown = "".join(f", such as {' and '.join(group)}" for group in self.examples[:1])
            raise UserError(
                f"{text}{shown}: that is {self.count / self.total:.1%}, and sanity.{self.key}={limit:g} allows "
                f"{limit:.1%}: {self.advice}, or accept it with sanity.{self.key}={self.accepting_limit:g}"
            )
        return [Remark(f"{text} (sanity.{self.key})", warns=True, examples=self.examples[:EXAMPLES])]

    @property
    def accepting_limit(self) -> float:
        """The lowest limit in whole percent that accepts the share."""
        return -(-100 * self.count // self.total) / 100
