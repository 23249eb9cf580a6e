"""The model as the HTTP side sees it: an image in, an answer or a refusal out, whatever happens to replicas."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from chestai.imaging import preprocess
from chestai.imaging.preprocess import Grey
from serve.inference.predictor import OodError, OodRejection, ScoreResult
from serve.monitoring.collector import VersionDrift
from serve.monitoring.events import EventBatch
from serve.problems import ApiError, overloaded
from serve.schemas import ModelCard, ModelInfo

TRIES = 3  # an answer costs nothing but time, so what a replica took with it is asked again
WATCH_S = 5.0  # that the watch is waited for


class RemoteScorer:
    """A model deployment of Ray Serve."""

    def __init__(self, model: DeploymentHandle) -> None:
        self.model = model
        self.size: int | None = None  # pixels a side of the version that answered last

    async def score(self, grey: Grey) -> ScoreResult:
        for _ in range(TRIES):
            if self.size is None:
                self.size = (await self.card()).size
            square = await asyncio.to_thread(preprocess.resize, grey, self.size)
            answer: ScoreResult | OodRejection | int = await self._asked("score", square)
            if isinstance(answer, ScoreResult):
                return answer
            if isinstance(answer, OodRejection):
                raise OodError(answer)
            self.size = answer  # another version has come, which sees another size
        raise overloaded("the model changes too often: try again")

    async def card(self) -> ModelCard:
        card: ModelCard = await self._asked("card")
        return card

    async def model_info(self) -> ModelInfo:
        served: ModelInfo = await self._asked("model_info")
        return served

    async def _asked(self, method: str, *arguments: Any) -> Any:
        for left in reversed(range(TRIES)):
            try:
                waiting: Awaitable[Any] = getattr(self.model, method).remote(*arguments)
                return await waiting
            except BackPressureError as error:
                raise overloaded("all replicas are busy and the queue is full: try again") from error
            except (RayActorError, DeploymentUnavailableError) as error:  # a replica died with it
                if not left:
                    raise overloaded("the model is not available: try again") from error


class RemoteMonitor:
    """The watch deployment of Ray Serve."""

    def __init__(self, watch: DeploymentHandle) -> None:
        self.watch = watch

    async def collect(self, batch: EventBatch) -> None:
        await self._asked("collect", batch)

    async def metrics(self) -> bytes:
        metrics: bytes = await self._asked("metrics")
        return metrics

    async def drift(self, version: int) -> VersionDrift:
        drift: VersionDrift = await self._asked("drift", version)
        return drift

    async def _asked(self, method: str, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(WATCH_S):
                waiting: Awaitable[Any] = getattr(self.watch, method).remote(*arguments)
                return await waiting
        except (TimeoutError, RayActorError, DeploymentUnavailableError, BackPressureError) as error:
            raise ApiError(503, "watch_unavailable", "what is counted cannot be told now: try again later") from error
