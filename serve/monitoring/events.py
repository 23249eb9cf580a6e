"""Events that the HTTP processes send to the monitor: requests, images, and the state of the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve.db.outbox import OutboxCounts
from serve.inference.predictor import MonitoredFeatures, OodRejection, ScoreResult
from serve.inference.rollout import ShadowComparison
from serve.schemas.inference import ModelInfo


@dataclass(frozen=True)
class RequestEvent:
    """A request. route: its pattern, or `none` for an unknown route. status: the status class, such as `2xx`."""

    route: str
    status: str
    seconds: float


@dataclass(frozen=True)
class ImageEvent:
    """An image in a request.

    reason: code of why it was not scored; None if it was. model: the version that scored or rejected it; None if it did
    not reach one. bucket: of triage. decode_s: includes the wait for a core. forward_s: of the whole batch.
    """

    reason: str | None = None
    model: ModelInfo | None = None
    features: MonitoredFeatures | None = None
    bucket: str | None = None
    decode_s: float | None = None
    forward_s: float | None = None

    @classmethod
    def scored(cls, result: ScoreResult, decode_s: float) -> "ImageEvent":
        """Creates the event of a scored image."""
        return cls(
            model=result.model,
            features=result.features,
            bucket=result.triage.bucket,
            decode_s=decode_s,
            forward_s=result.forward_ms / 1000,
        )

    @classmethod
    def not_scored(cls, reason: str, rejection: OodRejection | None) -> "ImageEvent":
        """Creates the event of an image without a score. rejection: given if the OOD detector rejected it."""
        return cls(reason) if rejection is None else cls(reason, rejection.model, rejection.features)


DraftOutcome = tuple[str, str]
"""Of a draft of a report: who worded it, and why the template stands although a language model was to be asked."""


@dataclass(frozen=True)
class EventBatch:
    """The events of an HTTP process since its last batch.

    number: grows by one from batch to batch; a batch that is sent again keeps its number. canary: `answered` or
    `missed` for each image of the canary's share. dropped: events dropped because too many waited. outbox: None if
    unknown.
    """

    process: str
    number: int
    requests: Sequence[RequestEvent] = ()
    images: Sequence[ImageEvent] = ()
    shadows: Sequence[ShadowComparison] = ()
    canary: Sequence[str] = ()
    drafts: Sequence[DraftOutcome] = ()
    dropped: int = 0
    outbox: OutboxCounts | None = None
