"""TODO"""

from typing import Protocol

from chestai.imaging.preprocess import Grey
from serve.inference.predictor import ScoreResult
from serve.schemas import ModelCard, ModelInfo


class Scorer(Protocol):
    """What answers for images."""

    async def score(self, grey: Grey) -> ScoreResult:
        """The answer to a decoded image.

        Raises:
            Unlike: it is no frontal chest radiograph.
            Refused: there is no room for it.
        """
        ...

    async def card(self) -> ModelCard:
        """The card of the version that answers now. Raises `Refused` where nothing answers."""
        ...

    async def served(self) -> ModelInfo:
        """Which version answers now. Raises as `card`."""
        ...
