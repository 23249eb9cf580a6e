"""A model in this process, as the HTTP side calls it."""

import asyncio

from chestai.imaging import preprocess
from chestai.imaging.preprocess import Grey
from serve.inference.model_host import ModelHost
from serve.inference.predictor import OodError, OodRejection, ScoreResult
from serve.schemas.inference import ModelInfo
from serve.schemas.operations import ModelCard


class LocalScorer:
    """A `ModelHost` of this process; a `Scorer`."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host

    async def score(self, grey: Grey) -> ScoreResult:
        model = self._host.loaded_model()
        square = await asyncio.to_thread(preprocess.resize, grey, model.size)
        result = await self._host.score_with(model, square)
        if isinstance(result, OodRejection):
            raise OodError(result)
        return result

    async def card(self) -> ModelCard:
        return self._host.card()

    async def model_info(self) -> ModelInfo:
        return self._host.model_info()
