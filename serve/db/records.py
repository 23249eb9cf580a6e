"""Images, predictions, reviews, labels and jobs: what is written of them, and read again.

Every write has a key of its own, so that it may be written again, late, or in another order, to the same end.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.triage.rule import Bucket
from serve.db.database import serialise_writes
from serve.db.models import ImageRow, JobRow, LabelRow, PositiveRow, PredictionRow, ReviewRow, ShadowRow, WorklistRow

URGENCY: dict[str, int] = {"urgent": 0, "soon": 1, "routine": 2}

Verdict = Literal["TP", "FP", "TN", "FN"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled")

ImageId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256 of the file's content
Name = Annotated[str, Field(min_length=1, max_length=100)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]  # PostgreSQL stores no NUL


def new_id() -> str:
    """A key that nothing else has."""
    return str(uuid4())


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True, protected_namespaces=())


class Image(Record):
    """An image that was received; `uri` is where its file is kept, if it is."""

    image_id: ImageId
    received_at: AwareDatetime
    file_name: Text | None = None
    view: Name | None = None
    height: int | None = None
    width: int | None = None
    split: Name | None = None
    uri: Text | None = None


class Prediction(Record):
    """What a model version said of an image.

    probabilities: finding -> [0, 1], None where undefined. score: of triage, [0, 1]. drivers: (finding, weight *
    probability). positives: the findings at or above their operating point. snapshot: of the model's data.
    """

    image_id: ImageId
    model_version: int
    runtime: Annotated[str, Field(max_length=50)]
    probabilities: dict[Name, Finite | None]
    score: Annotated[float, Field(ge=0, le=1)]
    bucket: Bucket
    drivers: tuple[tuple[Name, Finite], ...]
    positives: tuple[Name, ...]
    snapshot: Name
    at: AwareDatetime


class ShadowPrediction(Record):
    """What a version in the shadow would have said; champion_version: the one that answered."""

    image_id: ImageId
    model_version: int
    champion_version: int
    probabilities: dict[Name, Finite | None]
    score: Annotated[float, Field(ge=0, le=1)]
    bucket: Bucket
    at: AwareDatetime


class Review(Record):
    """A reader's verdict on one finding: the model was right (TP, TN) or wrong (FP, FN)."""

    image_id: ImageId
    model_version: int
    finding: Name
    verdict: Verdict
    reviewer: Annotated[str, Field(min_length=1, max_length=200)]
    notes: Text | None = None
    review_id: str = Field(default_factory=new_id)
    at: AwareDatetime = Field(default_factory=now)


class Label(Record):
    """What a source says of a finding: 1, 0, None where it does not know."""

    finding: Name
    source: Name
    value: Finite | None


class Job(Record):
    """Work that outlives its request: `done` of `total` items (None: not known yet), `result` where its outcome is."""

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
    """All that is known of an image: predictions newest first, reviews and labels in order."""

    image: Image
    predictions: tuple[Prediction, ...]
    reviews: tuple[Review, ...]
    labels: tuple[Label, ...]


def record_prediction(session: Session, image: Image, prediction: Prediction) -> None:
    """Write an image and a prediction of it, and its place in the worklist.

    Of several answers of a model version the newest by `at` stays; the image keeps its first time of receipt, and
    what else is known of it is taken from whoever knows it.

    Raises:
        ValueError: they are of different images.
    """
    if image.image_id != prediction.image_id:
        raise ValueError(f"prediction of {prediction.image_id} for image {image.image_id}")
    serialise_writes(session, image.image_id)
    known = session.get(ImageRow, image.image_id)
    before = None
    if known is None:
        session.add(ImageRow(**image.model_dump()))
    else:
        for name, value in image.model_dump(exclude_none=True).items():
            setattr(known, name, min(known.received_at, value) if name == "received_at" else value)
        before = session.get(PredictionRow, (prediction.image_id, prediction.model_version))
    if before is None:
        session.add(PredictionRow(**_columns(prediction)))
    elif before.at <= prediction.at:
        for name, value in _columns(prediction).items():
            setattr(before, name, value)
    session.flush()
    _place(session, image.image_id)


def record_shadow(session: Session, shadowed: ShadowPrediction) -> None:
    """Write what a version in the shadow said; of several of its answers the newest by `at` stays."""
    serialise_writes(session, shadowed.image_id)
    row = session.get(ShadowRow, (shadowed.image_id, shadowed.model_version))
    if row is None or row.at <= shadowed.at:
        session.merge(ShadowRow(**shadowed.model_dump()))


def record_review(session: Session, review: Review) -> None:
    """Write a verdict; one that is there already, by its ID, stays as it is."""
    serialise_writes(session, review.image_id)
    if session.get(ReviewRow, review.review_id) is not None:
        return
    session.add(ReviewRow(**review.model_dump()))
    row = session.get(WorklistRow, review.image_id)
    if row is not None and (row.reviewed_at is None or row.reviewed_at > review.at):
        row.reviewed_at = review.at


def record_labels(session: Session, image_id: str, labels: Sequence[Label]) -> None:
    """Write what sources say of an image; what they said before of the same findings is replaced."""
    serialise_writes(session, image_id)
    for label in labels:
        session.merge(LabelRow(image_id=image_id, **label.model_dump()))


def record_job(session: Session, job: Job) -> None:
    """Write how a job stands. An older state by `updated_at` changes nothing, and what has ended stays so."""
    serialise_writes(session, job.job_id)
    row = session.get(JobRow, job.job_id)
    if row is None:
        session.add(JobRow(**job.model_dump()))
    elif row.state not in ENDED and row.updated_at <= job.updated_at:
        for name, value in job.model_dump(exclude={"created_at"}).items():
            setattr(row, name, value)


def study(session: Session, image_id: str) -> Study | None:
    """All that is known of an image, None where it was never received."""
    image = session.get(ImageRow, image_id)
    if image is None:
        return None
    newest = (PredictionRow.at.desc(), PredictionRow.model_version.desc())
    predictions = session.scalars(select(PredictionRow).where(PredictionRow.image_id == image_id).order_by(*newest))
    reviews = select(ReviewRow).where(ReviewRow.image_id == image_id).order_by(ReviewRow.at, ReviewRow.review_id)
    labels = select(LabelRow).where(LabelRow.image_id == image_id).order_by(LabelRow.source, LabelRow.finding)
    return Study(
        image=Image.model_validate(image),
        predictions=tuple(Prediction.model_validate(row) for row in predictions),
        reviews=tuple(Review.model_validate(row) for row in session.scalars(reviews)),
        labels=tuple(Label.model_validate(row) for row in session.scalars(labels)),
    )


def job(session: Session, job_id: str) -> Job | None:
    """How a job stands, None where there is none."""
    row = session.get(JobRow, job_id)
    return None if row is None else Job.model_validate(row)


def unfinished_jobs(session: Session) -> list[Job]:
    """The jobs that have not ended, oldest first: what a restart goes on with."""
    rows = select(JobRow).where(JobRow.state.not_in(ENDED)).order_by(JobRow.created_at, JobRow.job_id)
    return [Job.model_validate(row) for row in session.scalars(rows)]


def _columns(prediction: Prediction) -> dict[str, Any]:
    """Plain values as JSON has them, but for the time."""
    return {**prediction.model_dump(mode="json"), "at": prediction.at}


def _place(session: Session, image_id: str) -> None:
    """Bring the worklist's row of an image up to date; called while nobody else writes the image."""
    image = session.get_one(ImageRow, image_id)
    newest = session.scalars(
        select(PredictionRow)
        .where(PredictionRow.image_id == image_id)
        .order_by(PredictionRow.at.desc(), PredictionRow.model_version.desc())
        .limit(1)
    ).one()
    place = {"urgency": URGENCY[newest.bucket], "falling": -newest.score, "received_at": image.received_at}
    row = session.get(WorklistRow, image_id)
    if row is None:
        reviewed_at = session.scalar(select(func.min(ReviewRow.at)).where(ReviewRow.image_id == image_id))
        row = WorklistRow(image_id=image_id, reviewed_at=reviewed_at, **place)
        session.add(row)
    else:
        session.execute(delete(PositiveRow).where(PositiveRow.image_id == image_id))
        if any(getattr(row, name) != value for name, value in place.items()):
            row.moved_at = now()
        for name, value in place.items():
            setattr(row, name, value)
    row.model_version, row.split = newest.model_version, image.split
    session.flush()
    session.add_all(PositiveRow(image_id=image_id, finding=finding) for finding in set(newest.positives))
