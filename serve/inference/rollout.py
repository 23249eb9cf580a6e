"""Rollout of another version next to the champion: a canary serves a share of the images, a shadow is only recorded."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from chestai.clock import now
from chestai.imaging.preprocess import Grey
from serve.db.records import ShadowPrediction
from serve.inference.memory_budget import MemoryBudget
from serve.inference.predictor import OodError, ScoreResult
from serve.inference.scorer import Scorer
from serve.problems import ApiError

log = logging.getLogger("ray.serve")

CANARY_DEADLINE_FRACTION = 0.5  # of a request's deadline, after which the champion takes over
CANARY_PAUSE_S = 10.0  # without requests to a canary that failed
MAX_SHADOW_TASKS = 8  # images that the shadow scores at a time


@dataclass(frozen=True)
class ShadowComparison:
    """The shadow's result for an image, compared with the returned prediction.

    outcome: `scored`, `refused` by its OOD detector, `skipped` or `failed`. agrees: whether both have the same triage
    bucket. difference: absolute difference of the triage scores.
    """

    outcome: str
    agrees: bool = False
    difference: float = 0.0


def rollout_fraction(image_id: str) -> float:
    """Maps an image to [0, 1): always the same for an image, uniform over images."""
    return int.from_bytes(hashlib.sha256(f"canary {image_id}".encode()).digest()[:6]) / 2**48


class Canary:
    """Scores the images whose `rollout_fraction` is below `share`; on a failure it leaves them to the champion."""

    def __init__(self, scorer: Scorer, share: float, deadline_s: float, count: Callable[[str], None]) -> None:
        """
        Args:
            count: Called with `answered` or `missed` for each image of the share.
        """
        self._scorer, self._share, self._count = scorer, share, count
        self._timeout_s = CANARY_DEADLINE_FRACTION * deadline_s
        self._paused_until = 0.0

    async def score(self, image_id: str, grey: Grey) -> ScoreResult | None:
        """Scores an image; returns None if the champion should.

        Raises:
            OodError: Its OOD detector rejects the image.
        """
        if rollout_fraction(image_id) >= self._share:
            return None
        if time.monotonic() < self._paused_until:
            self._count("missed")
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._scorer.score(grey)
        except OodError:
            self._count("answered")
            raise
        except Exception as error:  # whatever it is, the client still gets a prediction
            log.warning("the canary failed, the champion takes over: %s", type(error).__name__)
            self._paused_until = time.monotonic() + CANARY_PAUSE_S
            self._count("missed")
            return None
        self._count("answered")
        return result


class Shadow:
    """Scores images in the background, after their prediction was returned, and records its own."""

    def __init__(
        self,
        scorer: Scorer,
        deadline_s: float,
        memory: MemoryBudget,
        record: Callable[[ShadowPrediction], None],
        count: Callable[[ShadowComparison], None],
    ) -> None:
        """
        Args:
            memory: Of all requests; an image counts until the shadow has scored it.
            record: Saves a prediction; may block.
        """
        self._scorer, self._timeout_s, self._record, self._count = scorer, deadline_s, record, count
        self._memory = memory
        self._tasks: set[asyncio.Task[None]] = set()

    def schedule(self, image_id: str, grey: Grey, returned: ScoreResult) -> None:
        """Starts to score an image and returns at once. Skips it if `MAX_SHADOW_TASKS` run, or memory is full."""
        if len(self._tasks) >= MAX_SHADOW_TASKS or not self._has_memory(grey.nbytes):
            self._count(ShadowComparison("skipped"))
            return
        task = asyncio.create_task(self._score(image_id, grey, returned))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._memory.release(grey.nbytes))

    def _has_memory(self, size: int) -> bool:
        """Takes bytes; returns whether there were that many left."""
        try:
            self._memory.reserve(size)
        except ApiError:
            return False
        return True

    async def _score(self, image_id: str, grey: Grey, returned: ScoreResult) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._scorer.score(grey)
            prediction = ShadowPrediction(
                image_id=image_id,
                model_version=result.model.version,
                champion_version=returned.model.version,
                probabilities=dict(result.probabilities),
                score=result.triage.score,
                bucket=result.triage.bucket,
                at=now(),
            )
            await asyncio.to_thread(self._record, prediction)
        except OodError:
            self._count(ShadowComparison("refused"))
        except Exception as error:
            log.warning("the shadow failed: %s", type(error).__name__)
            self._count(ShadowComparison("failed"))
        else:
            difference = abs(result.triage.score - returned.triage.score)
            self._count(ShadowComparison("scored", result.triage.bucket == returned.triage.bucket, difference))
