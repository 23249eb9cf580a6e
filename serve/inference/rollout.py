"""Other versions beside the champion: a canary answers for a share of the images, a shadow is only written down."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from chestai.clock import now
from chestai.imaging.preprocess import Grey
from serve.db.records import ShadowPrediction
from serve.inference.predictor import OodError, ScoreResult
from serve.inference.scorer import Scorer

log = logging.getLogger("ray.serve")

CANARY_PART = 0.5  # of a request's deadline, after which the champion is asked instead
PAUSE_S = 10.0  # that a canary which did not answer is left alone
MOST = 8  # images that the shadow has at a time


@dataclass(frozen=True)
class ShadowComparison:
    """What became of an image in the shadow. outcome: `scored`, `refused` by its gate, `skipped` or `failed`.

    agrees: whether its bucket is the answer's. difference: of the triage scores, 0 and up.
    """

    outcome: str
    agrees: bool = False
    difference: float = 0.0


def rollout_fraction(image_id: str) -> float:
    """Where an image lies in [0, 1): the same for the same image, evenly spread over images."""
    return int.from_bytes(hashlib.sha256(f"canary {image_id}".encode()).digest()[:6]) / 2**48


class Canary:
    """Answers for the images below `share` of `part_of`; the champion does where it cannot."""

    def __init__(self, scorer: Scorer, share: float, deadline_s: float, count: Callable[[str], None]) -> None:
        """
        Args:
            count: is told `answered` or `missed` for each of its images.
        """
        self._scorer, self._share, self._wait_s, self._count = scorer, share, CANARY_PART * deadline_s, count
        self._rests_until = 0.0

    async def score(self, image_id: str, grey: Grey) -> ScoreResult | None:
        """Its answer; None where the champion is to be asked.

        Raises:
            Unlike: its input gate refuses the image.
        """
        if rollout_fraction(image_id) >= self._share:
            return None
        if time.monotonic() < self._rests_until:
            self._count("missed")
            return None
        try:
            async with asyncio.timeout(self._wait_s):
                answer = await self._scorer.score(grey)
        except OodError:
            self._count("answered")
            raise
        except Exception as error:  # whatever it is, it is no reason to leave the client without an answer
            log.warning("the canary did not answer, the champion does: %s", type(error).__name__)
            self._rests_until = time.monotonic() + PAUSE_S
            self._count("missed")
            return None
        self._count("answered")
        return answer


class Shadow:
    """Scores, in the background, what was answered already, and writes down what it would have said."""

    def __init__(
        self,
        scorer: Scorer,
        deadline_s: float,
        record: Callable[[ShadowPrediction], None],
        count: Callable[[ShadowComparison], None],
    ) -> None:
        """
        Args:
            record: keeps an answer; may block.
        """
        self._scorer, self._wait_s, self._record, self._count = scorer, deadline_s, record, count
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, image_id: str, grey: Grey, answered: ScoreResult) -> None:
        """Score an image after its answer; returns at once. While `MOST` are under way it is skipped."""
        if len(self._tasks) >= MOST:
            self._count(ShadowComparison("skipped"))
            return
        task = asyncio.create_task(self._follow(image_id, grey, answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, image_id: str, grey: Grey, answered: ScoreResult) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                scored = await self._scorer.score(grey)
            shadowed = ShadowPrediction(
                image_id=image_id,
                model_version=scored.served.version,
                champion_version=answered.served.version,
                probabilities=dict(scored.probabilities),
                score=scored.triage.score,
                bucket=scored.triage.bucket,
                at=now(),
            )
            await asyncio.to_thread(self._record, shadowed)
        except OodError:
            self._count(ShadowComparison("refused"))
        except Exception as error:
            log.warning("the shadow did not answer: %s", type(error).__name__)
            self._count(ShadowComparison("failed"))
        else:
            difference = abs(scored.triage.score - answered.triage.score)
            self._count(ShadowComparison("scored", scored.triage.bucket == answered.triage.bucket, difference))
