"""TODO"""

from typing import Protocol

from chestai.imaging.preprocess import Grey
from serve.inference.predictor import Scored
from serve.schemas import Served, ServedCard


class Scorer(Protocol):
    """What answers for images."""

    async def score(self, grey: Grey) -> Scored:
        """The answer to a decoded image.

        Raises:
            Unlike: it is no frontal chest radiograph.
            Refused: there is no room for it.
        """
        ...

    async def card(self) -> ServedCard:
        """The card of the version that answers now. Raises `Refused` where nothing answers."""
        ...

    async def served(self) -> Served:
        """Which version answers now. Raises as `card`."""
        ...
