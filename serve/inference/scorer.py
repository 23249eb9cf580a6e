"""The interface of whatever scores images: a model in this process, or a deployment."""

from typing import Protocol

from chestai.imaging.preprocess import Grey
from serve.inference.predictor import ScoreResult
from serve.schemas.inference import ModelInfo
from serve.schemas.operations import ModelCard


class Scorer(Protocol):
    """Scores images."""

    async def score(self, grey: Grey) -> ScoreResult:
        """Scores a decoded image.

        Raises:
            OodError: It is not a frontal chest radiograph.
            ApiError: The model is busy or unavailable.
        """

    async def card(self) -> ModelCard:
        """Returns the card of the current version. Raises ApiError if the model is unavailable."""

    async def model_info(self) -> ModelInfo:
        """Returns the current version. Raises as `card`."""
