"""The model and the monitor as the HTTP side calls them, through handles of Ray Serve."""

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
from serve.problems import ApiError, overloaded_error
from serve.schemas.inference import ModelInfo
from serve.schemas.operations import ModelCard

MAX_TRIES = 3  # scoring has no side effects, so a request that was lost with its replica is sent again
MONITOR_TIMEOUT_S = 5.0


class RemoteScorer:
    """A model deployment of Ray Serve; a `Scorer`."""

    def __init__(self, model: DeploymentHandle) -> None:
        self._model = model
        self._size: int | None = None  # side length of the images, in pixels, of the latest version seen

    async def score(self, grey: Grey) -> ScoreResult:
        for _ in range(MAX_TRIES):
            if self._size is None:
                self._size = (await self.card()).size
            square = await asyncio.to_thread(preprocess.resize, grey, self._size)
            response: ScoreResult | OodRejection | int = await self._call("score", square)
            if isinstance(response, ScoreResult):
                return response
            if isinstance(response, OodRejection):
                raise OodError(response)
            self._size = response  # another version was loaded, with images of another size
        raise overloaded_error("the model changes too often: try again")

    async def card(self) -> ModelCard:
        card: ModelCard = await self._call("card")
        return card

    async def model_info(self) -> ModelInfo:
        model_info: ModelInfo = await self._call("model_info")
        return model_info

    async def _call(self, method: str, *arguments: Any) -> Any:
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                response: Awaitable[Any] = getattr(self._model, method).remote(*arguments)
                return await response
            except BackPressureError as error:
                raise overloaded_error("all replicas are busy and the queue is full: try again") from error
            except (RayActorError, DeploymentUnavailableError) as error:  # the replica died
                if not tries_left:
                    raise overloaded_error("the model is not available: try again") from error


class RemoteMonitor:
    """The monitor deployment of Ray Serve; a `MonitorClient`."""

    def __init__(self, monitor: DeploymentHandle) -> None:
        self._monitor = monitor

    async def collect(self, batch: EventBatch) -> None:
        await self._call("collect", batch)

    async def metrics(self) -> bytes:
        metrics: bytes = await self._call("metrics")
        return metrics

    async def drift(self, version: int) -> VersionDrift:
        drift: VersionDrift = await self._call("drift", version)
        return drift

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(MONITOR_TIMEOUT_S):
                response: Awaitable[Any] = getattr(self._monitor, method).remote(*arguments)
                return await response
        except (TimeoutError, RayActorError, DeploymentUnavailableError, BackPressureError) as error:
            raise ApiError(503, "watch_unavailable", "the monitor is not available: try again later") from error
