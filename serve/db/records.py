"""Records of images, predictions, reviews, labels and jobs: how they are written and read.

Every write has its own key, so it may be repeated, delayed or reordered without changing the result.
"""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.triage.rule import Bucket
from serve.db.database import serialise_writes
from serve.db.models import (
    ImageRow,
    JobRow,
    LabelRow,
    PredictionRow,
    RejectionRow,
    ReviewRow,
    ShadowRow,
    table,
)
from serve.db.worklist.row import add_worklist_row, update_worklist_row
from serve.schemas.confidence import Bands, LabelSets

Verdict = Literal["TP", "FP", "TN", "FN", "unsure", "withdrawn"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED_STATES: tuple[JobState, ...] = ("done", "failed", "cancelled")

ImageId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256 of the file's content
WITHOUT_NUL = r"^[^\x00]*$"  # PostgreSQL stores none
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=WITHOUT_NUL)]
Key = Annotated[str, Field(min_length=1, max_length=200, pattern=WITHOUT_NUL)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=10_000, pattern=WITHOUT_NUL)]


def new_id() -> str:
    """Returns a new unique ID (UUID 4)."""
    return str(uuid4())


class Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        from_attributes=True,
        protected_namespaces=(),
        json_schema_serialization_defaults_required=True,  # answers have every field
    )


class Image(Record):
    """A received image. uri: of the stored file; None if it is not stored.

    source, patient_key, study_id, age_years, sex, split, view, studied_on: of the corpus, or of a DICOM header, where
    the key is a keyed hash of the patient ID; None if neither says it. prior: to be compared with, not in the worklist.
    """

    image_id: ImageId
    received_at: AwareDatetime
    file_name: Text | None = None
    view: Name | None = None
    height: int | None = None
    width: int | None = None
    split: Name | None = None
    uri: Text | None = None
    source: Name | None = None
    patient_key: Key | None = None
    study_id: Key | None = None
    age_years: FiniteFloat | None = None
    sex: Name | None = None
    studied_on: date | None = None
    prior: bool = False


class Prediction(Record):
    """A model version's prediction for an image.

    probabilities: finding -> [0, 1], None where undefined. score: of triage, [0, 1]. drivers: (finding, weight *
    probability). positives: findings at or above their operating point. snapshot: of the model's training data.
    confidence, label_sets: by that version; None if its bundle had none.
    """

    image_id: ImageId
    model_version: int
    runtime: Annotated[str, Field(max_length=50)]
    probabilities: dict[Name, FiniteFloat | None]
    confidence: Bands | None = None
    label_sets: LabelSets | None = None
    score: Annotated[float, Field(ge=0, le=1)]
    bucket: Bucket
    drivers: tuple[tuple[Name, FiniteFloat], ...]
    positives: tuple[Name, ...]
    snapshot: Name
    at: AwareDatetime


class Rejection(Record):
    """Why an image was not scored. reason: a code, such as `out_of_distribution`. detail: the same for a person."""

    image_id: ImageId
    reason: Name
    detail: Text
    at: AwareDatetime


class ShadowPrediction(Record):
    """A shadow version's prediction. champion_version: the version whose prediction was returned."""

    image_id: ImageId
    model_version: int
    champion_version: int
    probabilities: dict[Name, FiniteFloat | None]
    score: Annotated[float, Field(ge=0, le=1)]
    bucket: Bucket
    at: AwareDatetime


class Review(Record):
    """A reviewer's verdict on a finding: the model was right (TP, TN), was wrong (FP, FN), or nobody can say (unsure).

    withdrawn: takes the reviewer's earlier verdict back.
    """

    image_id: ImageId
    model_version: int
    finding: Name
    verdict: Verdict
    reviewer: Annotated[str, Field(min_length=1, max_length=200)]
    notes: Text | None = None
    review_id: str = Field(default_factory=new_id)
    at: AwareDatetime = Field(default_factory=now)


class Label(Record):
    """A label that a source gives for a finding: 1, 0, or None for unknown."""

    finding: Name
    source: Name
    value: FiniteFloat | None


class Job(Record):
    """A job that outlives its request: `done` of `total` items (None: not known yet). result: where its output is."""

    kind: Name
    owner: Annotated[str, Field(min_length=1, max_length=200)]
    state: JobState = "queued"
    done: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] | None = None
    result: Text | None = None
    error: Text | None = None
    job_id: str = Field(default_factory=new_id)
    created_at: AwareDatetime = Field(default_factory=now)
    updated_at: AwareDatetime = Field(default_factory=now)


class Study(Record):
    """An image with its predictions (newest first), reviews (oldest first), labels (by source and finding), and last
    rejection."""

    image: Image
    predictions: tuple[Prediction, ...]
    reviews: tuple[Review, ...]
    labels: tuple[Label, ...]
    rejection: Rejection | None = None


def record_image(session: Session, image: Image) -> None:
    """Writes an image. A stored one keeps its first time of receipt; other values that are not None replace its own.

    A prior is none any more once it is received as a new image; a new image never becomes one.
    """
    serialise_writes(session, image.image_id)
    row = session.get(ImageRow, image.image_id)
    if row is None:
        session.add(ImageRow(**image.model_dump()))
    else:
        received_at, prior = min(row.received_at, image.received_at), row.prior and image.prior
        for name, value in {**image.model_dump(exclude_none=True), "received_at": received_at, "prior": prior}.items():
            setattr(row, name, value)
    session.flush()


def record_prediction(session: Session, image: Image, prediction: Prediction) -> None:
    """Writes an image and its prediction, and updates the worklist.

    Of several predictions of a model version, the newest by `at` is kept; see also `record_image`.

    Raises:
        ValueError: The prediction is for another image.
    """
    if image.image_id != prediction.image_id:
        raise ValueError(f"prediction of {prediction.image_id} for image {image.image_id}")
    serialise_writes(session, image.image_id)
    if session.get(ImageRow, image.image_id) is None:
        _add_scored_image(session, image, prediction)
        return
    record_image(session, image)
    stored = session.get(PredictionRow, (prediction.image_id, prediction.model_version))
    if stored is None or stored.at <= prediction.at:
        session.merge(PredictionRow(**_columns(prediction)))
    session.flush()
    update_worklist_row(session, image.image_id)


def _add_scored_image(session: Session, image: Image, prediction: Prediction) -> None:
    """Writes an image that is not there yet: the common case, and a third of the general way's CPU time."""
    image_columns, prediction_columns = image.model_dump(), _columns(prediction)
    session.execute(insert(table(ImageRow)), [image_columns])
    session.execute(insert(table(PredictionRow)), [prediction_columns])
    add_worklist_row(session, image_columns, prediction_columns)


def record_shadow(session: Session, prediction: ShadowPrediction) -> None:
    """Writes a shadow prediction; of several of a version, the newest by `at` is kept."""
    serialise_writes(session, prediction.image_id)
    row = session.get(ShadowRow, (prediction.image_id, prediction.model_version))
    if row is None or row.at <= prediction.at:
        session.merge(ShadowRow(**prediction.model_dump()))


def record_labels(session: Session, image_id: str, labels: Sequence[Label]) -> None:
    """Writes labels of an image; they replace earlier ones of the same source and finding."""
    serialise_writes(session, image_id)
    for label in labels:
        session.merge(LabelRow(image_id=image_id, **label.model_dump()))


def record_job(session: Session, job: Job) -> None:
    """Writes the state of a job. A state older by `updated_at` is ignored, and so is any change to a finished job."""
    serialise_writes(session, job.job_id)
    row = session.get(JobRow, job.job_id)
    if row is None:
        session.add(JobRow(**job.model_dump()))
    elif row.state not in FINISHED_STATES and row.updated_at <= job.updated_at:
        for name, value in job.model_dump(exclude={"created_at"}).items():
            setattr(row, name, value)


def load_study(session: Session, image_id: str) -> Study | None:
    """Returns an image with everything recorded for it; None if it was never received."""
    image = session.get(ImageRow, image_id)
    if image is None:
        return None
    rejection = session.get(RejectionRow, image_id)
    newest = (PredictionRow.at.desc(), PredictionRow.model_version.desc())
    predictions = session.scalars(select(PredictionRow).where(PredictionRow.image_id == image_id).order_by(*newest))
    reviews = select(ReviewRow).where(ReviewRow.image_id == image_id).order_by(ReviewRow.at, ReviewRow.review_id)
    labels = select(LabelRow).where(LabelRow.image_id == image_id).order_by(LabelRow.source, LabelRow.finding)
    return Study(
        image=Image.model_validate(image),
        predictions=tuple(Prediction.model_validate(row) for row in predictions),
        rejection=None if rejection is None else Rejection.model_validate(rejection),
        reviews=tuple(Review.model_validate(row) for row in session.scalars(reviews)),
        labels=tuple(Label.model_validate(row) for row in session.scalars(labels)),
    )


def load_job(session: Session, job_id: str) -> Job | None:
    """Returns the state of a job; None if there is no such job."""
    row = session.get(JobRow, job_id)
    return None if row is None else Job.model_validate(row)


def load_jobs(session: Session, owner: str | None, limit: int) -> list[Job]:
    """Returns the newest jobs, newest first: those of an owner; None for all."""
    query = select(JobRow) if owner is None else select(JobRow).where(JobRow.owner == owner)
    rows = session.scalars(query.order_by(JobRow.created_at.desc(), JobRow.job_id).limit(limit))
    return [Job.model_validate(row) for row in rows]


def load_unfinished_jobs(session: Session) -> list[Job]:
    """Returns the unfinished jobs, oldest first."""
    rows = select(JobRow).where(JobRow.state.not_in(FINISHED_STATES)).order_by(JobRow.created_at, JobRow.job_id)
    return [Job.model_validate(row) for row in session.scalars(rows)]


def _columns(prediction: Prediction) -> dict[str, Any]:
    """Returns JSON values, except for the time."""
    return {**prediction.model_dump(mode="json"), "at": prediction.at}
