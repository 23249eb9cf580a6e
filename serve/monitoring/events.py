"""What the HTTP side tells the watch: requests that were answered, images that came in, how its state stands."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve.db.outbox import OutboxCounts
from serve.inference.predictor import MonitoredFeatures, OodRejection, ScoreResult
from serve.inference.rollout import ShadowComparison
from serve.schemas import ModelInfo


@dataclass(frozen=True)
class RequestEvent:
    """A request. route: its pattern, `none` where there is no such route. status: the class, such as `2xx`."""

    route: str
    status: str
    seconds: float


@dataclass(frozen=True)
class ImageEvent:
    """An image that was asked for.

    reason: the code of why it has no scores, None where it has. served: the version that answered or refused it, None
    where it did not get so far. bucket: of triage. decode_s: including the wait for a core. forward_s: of the batch
    that it was in.
    """

    reason: str | None = None
    served: ModelInfo | None = None
    observed: MonitoredFeatures | None = None
    bucket: str | None = None
    decode_s: float | None = None
    forward_s: float | None = None

    @classmethod
    def scored(cls, scored: ScoreResult, decode_s: float) -> "ImageEvent":
        """One that has scores."""
        return cls(
            served=scored.served,
            observed=scored.observed,
            bucket=scored.triage.bucket,
            decode_s=decode_s,
            forward_s=scored.forward_ms / 1000,
        )

    @classmethod
    def refused(cls, reason: str, strange: OodRejection | None) -> "ImageEvent":
        """One that has none; strange: where the input gate refused it."""
        return cls(reason) if strange is None else cls(reason, strange.served, strange.observed)


@dataclass(frozen=True)
class EventBatch:
    """What happened in a process of the HTTP side since it told the last time.

    number: rises by one from each to the next, and is the same where one is told again. canary: whether each of its
    images was `answered` or `missed`. untold: of all these, what was left out, for it was too much. state: None where
    it is not known.
    """

    process: str
    number: int
    requests: Sequence[RequestEvent] = ()
    images: Sequence[ImageEvent] = ()
    shadows: Sequence[ShadowComparison] = ()
    canary: Sequence[str] = ()
    untold: int = 0
    state: OutboxCounts | None = None
