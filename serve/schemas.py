"""What the endpoint answers in JSON; the OpenAPI document is made from these."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from chestai.config.schema import Modes
from chestai.model.bundle import Card
from chestai.monitoring.drift import Verdict
from chestai.notice import RESEARCH_USE
from chestai.triage.rule import Bucket
from serve.auth.permissions import Scope
from serve.db.records import Image, JobState, Label, Review, Study
from serve.db.worklist import WorklistEntry
from serve.problems import Problem


class ModelInfo(BaseModel):
    """The model version that answered, the dataset snapshot it learnt from, and what computed the answer."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    snapshot: str
    synthetic: bool
    runtime: str


class Driver(BaseModel):
    """A finding behind the triage score, and its weight * probability."""

    finding: str
    weighted: float


class Triage(BaseModel):
    """How soon the study should be read."""

    score: float
    bucket: Bucket
    drivers: list[Driver]


class Timings(BaseModel):
    """Milliseconds. decode: reading, resizing and the wait for a core. forward: of the whole batch that it was in."""

    decode: float
    forward: float


class Overlay(BaseModel):
    """The image with the Grad-CAM of a finding on top, a PNG in base64.

    reached: whether the finding reaches its operating point; null where it has none. A map is scaled by its own peak,
    and looks convincing even where the network sees nothing.
    """

    finding: str
    reached: bool | None
    png: str


class FindingsResponse(BaseModel):
    """One image's findings. thresholds_used: operating points, null where a finding has none."""

    image_id: str
    file_name: str | None = None
    probabilities: dict[str, float]
    positives: list[str]
    thresholds_used: dict[str, float | None]
    model: ModelInfo
    notice: str = RESEARCH_USE


class InferResponse(FindingsResponse):
    """One image's findings, how soon it should be read, and the overlays that were asked for."""

    triage: Triage
    overlays: list[Overlay] = []
    timings_ms: Timings


def is_flagged(bucket: Bucket) -> bool:
    """Whether a study is one to look at before others."""
    return bucket != "routine"


class FlagTriage(BaseModel):
    """How soon the study should be read, without the numbers behind it."""

    bucket: Bucket


class FlaggedResponse(BaseModel):
    """What is told of one image where `serve.modes.flag_only` is on. flagged: it is urgent or soon."""

    image_id: str
    file_name: str | None = None
    flagged: bool
    triage: FlagTriage
    model: ModelInfo
    notice: str = RESEARCH_USE


class NotScored(BaseModel):
    """A file of a batch that has no answer, and why."""

    file_name: str | None
    not_scored: Problem


class BatchResponse(BaseModel):
    """An answer a file, in the order of the files."""

    results: list[FindingsResponse | FlaggedResponse | NotScored]
    notice: str = RESEARCH_USE


class FlaggedWorklistEntry(BaseModel):
    """A study in the worklist where `serve.modes.flag_only` is on."""

    image_id: str
    file_name: str | None
    received_at: datetime
    split: str | None
    model_version: int
    bucket: Bucket
    flagged: bool
    reviewed_at: datetime | None
    escalated: bool


class WorklistResponse(BaseModel):
    """A page of the worklist; cursor: of the next page, null on the last."""

    studies: Sequence[WorklistEntry | FlaggedWorklistEntry]
    cursor: str | None = None
    notice: str = RESEARCH_USE


class ImageRecord(Study):
    """All that is known of an image that was received: answers newest first, reviews, labels."""

    notice: str = RESEARCH_USE


class FlaggedPrediction(BaseModel):
    """An answer of a model version where `serve.modes.flag_only` is on."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: int
    flagged: bool
    triage: FlagTriage
    snapshot: str
    at: datetime


class FlaggedImageRecord(BaseModel):
    """What is told of an image that was received where `serve.modes.flag_only` is on; answers newest first."""

    image: Image
    predictions: list[FlaggedPrediction]
    reviews: tuple[Review, ...]
    labels: tuple[Label, ...]
    notice: str = RESEARCH_USE


class ReviewsResponse(BaseModel):
    """The verdicts as they are kept."""

    reviews: list[Review]
    notice: str = RESEARCH_USE


class ApiKeyInfo(BaseModel):
    """What may be shown of an API key. scopes: what it is narrowed to, null for all that its owner's role may."""

    prefix: str
    owner: str
    scopes: list[Scope] | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class ApiKeyList(BaseModel):
    """All keys, by age."""

    keys: list[ApiKeyInfo]
    notice: str = RESEARCH_USE


class NewApiKey(BaseModel):
    """A new key: this is the only time that it is seen."""

    key: str
    notice: str = RESEARCH_USE


class FeatureDrift(BaseModel):
    """How far a feature has moved from the training. psi, ks: null where there is no image, ks also for words.

    n: images of the window that have it.
    """

    name: str
    psi: float | None
    ks: float | None
    verdict: Verdict
    n: int


class DriftWindow(BaseModel):
    """The last images. since: when counting began, at the start or restart of the watch."""

    images: int
    since: datetime


class DriftReport(BaseModel):
    """How far what comes in, and what is answered, has moved from what the model was made on.

    verdict: the worst of all features'. reason: why it is unknown. reference_images: that it is held against, null
    where the version has no drift reference.
    """

    model: ModelInfo
    verdict: Verdict
    reason: str | None = None
    window: DriftWindow
    features: list[FeatureDrift]
    reference_images: int | None = None
    notice: str = RESEARCH_USE


class JobResponse(BaseModel):
    """How a job stands: images done of `total`, null until that is known.

    result: of a job that is done, where its outcome is: `csv`, a row an image, most urgent first, and `table`, the
    Delta table of all that the version has scored. error: why it failed, one line.
    """

    job_id: str
    state: JobState
    done: int
    total: int | None = None
    result: dict[str, str] | None = None
    error: str | None = None
    created_at: datetime
    updated_at: datetime
    notice: str = RESEARCH_USE


class Health(BaseModel):
    """Answered by a model replica where it is about readiness, so `ok` means that a model is loaded."""

    status: str = "ok"
    model: ModelInfo | None = None
    notice: str = RESEARCH_USE


class ModelCard(Card):
    """The card of the bundle that is served, and its version in the registry."""

    version: int


class DescribedModel(ModelCard):
    """The card of the bundle that is served, its version, and what the endpoint may show of its answers."""

    modes: Modes
