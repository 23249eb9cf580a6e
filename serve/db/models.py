"""The tables, the same on SQLite and PostgreSQL. All times are UTC; an image's ID is the SHA-256 of its bytes."""

from datetime import UTC, date, datetime
from typing import Any, cast

from sqlalchemy import Dialect, ForeignKey, Index, Table
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON, BigInteger, Boolean, Date, DateTime, Double, Integer, String, Text, TypeDecorator

SHA256 = 64  # hex digits
BY_URGENCY = ("urgency", "falling", "received_at", "image_id")
UNREVIEWED = sql("reviewed_at IS NULL")


class UtcTime(TypeDecorator[datetime]):
    """Takes a time with a zone and returns it in UTC. SQLite has no zones, so it stores the UTC time without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """
        Raises:
            ValueError: The time has no zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value} has no zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Json = JSON().with_variant(JSONB(), "postgresql")
NullableJson = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Base(DeclarativeBase):
    """The declarative base. Tests compare the migrations with `Base.metadata`."""


def table(row: type[Base]) -> Table:
    """Returns the table of a class, for statements in the path of each image: the ORM's take twice the CPU time."""
    return cast(Table, row.__table__)


class UserRow(Base):
    """A user, who may hold API keys. role: reader, reviewer or admin."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class KeyRow(Base):
    """An API key, as a hash. scopes: null for everything that the owner's role allows."""

    __tablename__ = "api_keys"

    prefix: Mapped[str] = mapped_column(String(20), primary_key=True)
    hash: Mapped[str] = mapped_column(String(SHA256))
    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), index=True)
    scopes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)


class ImageRow(Base):
    """A received image. uri: of the stored file; null if it is not stored.

    source to studied_on: of the corpus, or of a DICOM header. patient_key: as in the lake, or a keyed hash of the
    patient ID. prior: whether it is there to be compared with, and not in the worklist.
    """

    __tablename__ = "images"

    image_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    file_name: Mapped[str | None] = mapped_column(Text)
    view: Mapped[str | None] = mapped_column(String(20))
    height: Mapped[int | None] = mapped_column(Integer)
    width: Mapped[int | None] = mapped_column(Integer)
    split: Mapped[str | None] = mapped_column(String(20))
    received_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    uri: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str | None] = mapped_column(String(100))
    patient_key: Mapped[str | None] = mapped_column(String(200))
    study_id: Mapped[str | None] = mapped_column(String(200), index=True)
    age_years: Mapped[float | None] = mapped_column(Double)
    sex: Mapped[str | None] = mapped_column(String(20))
    studied_on: Mapped[date | None] = mapped_column(Date)
    prior: Mapped[bool] = mapped_column(Boolean, default=False, server_default=sql("false"))

    __table_args__ = (Index("images_patient", "patient_key", "received_at"), Index("images_file_name", "file_name"))


class LabelRow(Base):
    """A label that a source gives for a finding: 1, 0, or null for unknown."""

    __tablename__ = "labels"

    image_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    finding: Mapped[str] = mapped_column(String(100), primary_key=True)
    source: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[float | None] = mapped_column(Double)


class PredictionRow(Base):
    """The newest prediction of a model version for an image.

    probabilities: finding -> probability, null where undefined. drivers: [[finding, weight * probability], ...].
    positives: findings at or above their operating point. snapshot: of the model's training data. confidence,
    label_sets: as the version's bundle had them; null if it had none.
    """

    __tablename__ = "predictions"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.image_id"), primary_key=True)
    model_version: Mapped[int] = mapped_column(Integer, primary_key=True)
    runtime: Mapped[str] = mapped_column(String(50))
    probabilities: Mapped[dict[str, float | None]] = mapped_column(Json)
    score: Mapped[float] = mapped_column(Double)
    bucket: Mapped[str] = mapped_column(String(20))
    drivers: Mapped[list[Any]] = mapped_column(Json)
    positives: Mapped[list[str]] = mapped_column(Json)
    snapshot: Mapped[str] = mapped_column(String(100))
    at: Mapped[datetime] = mapped_column(UtcTime)
    confidence: Mapped[dict[str, Any] | None] = mapped_column(NullableJson)
    label_sets: Mapped[dict[str, Any] | None] = mapped_column(NullableJson)

    __table_args__ = (Index("predictions_newest", "image_id", "at"),)


class RejectionRow(Base):
    """Why an image was not scored, the last time that it was not. reason: a code. detail: the same for a person."""

    __tablename__ = "rejections"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.image_id"), primary_key=True)
    reason: Mapped[str] = mapped_column(String(100))
    detail: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcTime)


class ShadowRow(Base):
    """A shadow version's prediction for an image. Neither the worklist nor the image's record shows it.

    champion_version: the version whose prediction was returned. score, bucket: the shadow's triage.
    """

    __tablename__ = "shadows"

    image_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    model_version: Mapped[int] = mapped_column(Integer, primary_key=True)
    champion_version: Mapped[int] = mapped_column(Integer)
    probabilities: Mapped[dict[str, float | None]] = mapped_column(Json)
    score: Mapped[float] = mapped_column(Double)
    bucket: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime] = mapped_column(UtcTime)


class WorklistRow(Base):
    """An image as the worklist sorts and filters it, from its newest prediction and its reviews.

    urgency: 0 urgent, 1 soon, 2 routine. falling: minus the triage score, so that all columns sort in ascending order.
    moved_at: of its last move, or null. leads: whether it stands for its study. reviewed_at: of the first review.
    """

    __tablename__ = "worklist"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.image_id"), primary_key=True)
    model_version: Mapped[int] = mapped_column(Integer)
    urgency: Mapped[int] = mapped_column(Integer)
    falling: Mapped[float] = mapped_column(Double)
    split: Mapped[str | None] = mapped_column(String(20))
    received_at: Mapped[datetime] = mapped_column(UtcTime)
    moved_at: Mapped[datetime | None] = mapped_column(UtcTime, index=True)
    leads: Mapped[bool] = mapped_column(Boolean, default=True, server_default=sql("true"))
    reviewed_at: Mapped[datetime | None] = mapped_column(UtcTime, index=True)

    # Partial indexes: unreviewed studies are a small part of the table, and the part that clients ask for.
    __table_args__ = (
        Index("worklist_urgency", *BY_URGENCY),
        Index("worklist_waiting_urgency", *BY_URGENCY, sqlite_where=UNREVIEWED, postgresql_where=UNREVIEWED),
        Index("worklist_waiting_age", *BY_URGENCY[2:], sqlite_where=UNREVIEWED, postgresql_where=UNREVIEWED),
    )


class PositiveRow(Base):
    """A positive finding of the prediction that is in the worklist."""

    __tablename__ = "positives"

    image_id: Mapped[str] = mapped_column(ForeignKey("worklist.image_id"), primary_key=True)
    finding: Mapped[str] = mapped_column(String(100), primary_key=True)


class ClaimRow(Base):
    """Who is reading a study, until when; an expired claim is none."""

    __tablename__ = "claims"

    image_id: Mapped[str] = mapped_column(ForeignKey("worklist.image_id"), primary_key=True)
    reader: Mapped[str] = mapped_column(String(200))
    until: Mapped[datetime] = mapped_column(UtcTime, index=True)


class ReviewRow(Base):
    """A reviewer's verdict on a finding of an image. Counts use the latest verdict of each reviewer."""

    __tablename__ = "reviews"

    review_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    image_id: Mapped[str] = mapped_column(String(SHA256))
    model_version: Mapped[int] = mapped_column(Integer)
    finding: Mapped[str] = mapped_column(String(100))
    verdict: Mapped[str] = mapped_column(String(20))
    notes: Mapped[str | None] = mapped_column(Text)
    reviewer: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index("reviews_image", "image_id", "at"),)


class JobRow(Base):
    """A job that outlives its request. result: where its output is."""

    __tablename__ = "jobs"

    job_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(20), index=True)
    owner: Mapped[str] = mapped_column(String(200))
    done: Mapped[int] = mapped_column(Integer)
    total: Mapped[int | None] = mapped_column(Integer)
    result: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)


class AuditRow(Base):
    """A row of the audit chain. detail: the exact JSON text that was hashed."""

    __tablename__ = "audit"

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[str] = mapped_column(String(36), unique=True)
    at: Mapped[datetime] = mapped_column(UtcTime)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(100))
    object: Mapped[str] = mapped_column(String(200))
    detail: Mapped[str] = mapped_column(Text)
    previous: Mapped[str] = mapped_column(String(SHA256))
    hash: Mapped[str] = mapped_column(String(SHA256))


class AuditHeadRow(Base):
    """The single row that names the chain's last row. Appends lock it, and it reveals rows cut off the end."""

    __tablename__ = "audit_head"

    one: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(SHA256))


class SessionRow(Base):
    """The session of a browser; its token as a hash. name, role, scopes: of the principal who signed in.

    key_prefix: of the API key that opened it; null for a sign-in at the identity provider. last_seen_at: exact to a
    minute.
    """

    __tablename__ = "sessions"

    hash: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20))
    scopes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    key_prefix: Mapped[str | None] = mapped_column(ForeignKey("api_keys.prefix"))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    last_seen_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime] = mapped_column(UtcTime)
