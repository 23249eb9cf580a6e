"""The tables, alike on SQLite and PostgreSQL. Every time is UTC; an image is known by its content's SHA-256."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, DateTime, Dialect, Double, ForeignKey, Index, Integer, String, Text
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

SHA256 = 64  # hex digits


class UtcTime(TypeDecorator[datetime]):
    """A time with a zone in, the same moment in UTC out; SQLite, which has no zones, holds it without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Raises ValueError for a time without a zone."""
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


class Table(DeclarativeBase):
    """The base that declares them all; `Table.metadata` is what migrations are compared with."""


class UserRow(Table):
    """Who may hold keys; role is reader, reviewer or admin."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class KeyRow(Table):
    """An API key: its hash, never itself. `scopes` null: all that the owner's role may."""

    __tablename__ = "api_keys"

    prefix: Mapped[str] = mapped_column(String(20), primary_key=True)
    hash: Mapped[str] = mapped_column(String(SHA256))
    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), index=True)
    scopes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)


class ImageRow(Table):
    """An image that was received; `uri` is where its file is kept, null where it is not."""

    __tablename__ = "images"

    image_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    file_name: Mapped[str | None] = mapped_column(Text)
    view: Mapped[str | None] = mapped_column(String(20))
    height: Mapped[int | None] = mapped_column(Integer)
    width: Mapped[int | None] = mapped_column(Integer)
    split: Mapped[str | None] = mapped_column(String(20))
    received_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    uri: Mapped[str | None] = mapped_column(Text)


class LabelRow(Table):
    """What a source says of a finding: 1, 0, or null where it does not know."""

    __tablename__ = "labels"

    image_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    finding: Mapped[str] = mapped_column(String(100), primary_key=True)
    source: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[float | None] = mapped_column(Double)


class PredictionRow(Table):
    """The newest answer of a model version for an image.

    probabilities: finding -> probability, null where undefined. drivers: [[finding, weight * probability], ...].
    positives: findings at or above their operating point. snapshot: of the data that the model learnt from.
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

    __table_args__ = (Index("predictions_newest", "image_id", "at"),)


class ShadowRow(Table):
    """What a version in the shadow would have said of an image; no worklist and no record of the image shows it.

    champion_version: the one that answered. score, bucket: of triage, by the shadow.
    """

    __tablename__ = "shadows"

    image_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    model_version: Mapped[int] = mapped_column(Integer, primary_key=True)
    champion_version: Mapped[int] = mapped_column(Integer)
    probabilities: Mapped[dict[str, float | None]] = mapped_column(Json)
    score: Mapped[float] = mapped_column(Double)
    bucket: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime] = mapped_column(UtcTime)


class WorklistRow(Table):
    """A study as the worklist sorts and filters it: one row an image, made of its newest prediction and its reviews.

    urgency: 0 urgent, 1 soon, 2 routine. falling: minus the triage score, so that every sort goes upwards. moved_at:
    when an answer last changed its place, null for the first. reviewed_at: of the first review, null for none.
    """

    __tablename__ = "worklist"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.image_id"), primary_key=True)
    model_version: Mapped[int] = mapped_column(Integer)
    urgency: Mapped[int] = mapped_column(Integer)
    falling: Mapped[float] = mapped_column(Double)
    split: Mapped[str | None] = mapped_column(String(20))
    received_at: Mapped[datetime] = mapped_column(UtcTime)
    moved_at: Mapped[datetime | None] = mapped_column(UtcTime, index=True)
    reviewed_at: Mapped[datetime | None] = mapped_column(UtcTime, index=True)

    # What is not reviewed is a small part of what there is, and the part that is asked for.
    __table_args__ = (
        Index("worklist_urgency", "urgency", "falling", "received_at", "image_id"),
        Index(
            "worklist_waiting_urgency",
            "urgency",
            "falling",
            "received_at",
            "image_id",
            sqlite_where=sql("reviewed_at IS NULL"),
            postgresql_where=sql("reviewed_at IS NULL"),
        ),
        Index(
            "worklist_waiting_age",
            "received_at",
            "image_id",
            sqlite_where=sql("reviewed_at IS NULL"),
            postgresql_where=sql("reviewed_at IS NULL"),
        ),
    )


class PositiveRow(Table):
    """A finding of the prediction that stands in the worklist."""

    __tablename__ = "positives"

    image_id: Mapped[str] = mapped_column(ForeignKey("worklist.image_id"), primary_key=True)
    finding: Mapped[str] = mapped_column(String(100), primary_key=True)


class ReviewRow(Table):
    """A reader's verdict on one finding of an image; a later one of the same reader replaces it in what is counted."""

    __tablename__ = "reviews"

    review_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    image_id: Mapped[str] = mapped_column(String(SHA256))
    model_version: Mapped[int] = mapped_column(Integer)
    finding: Mapped[str] = mapped_column(String(100))
    verdict: Mapped[str] = mapped_column(String(2))
    notes: Mapped[str | None] = mapped_column(Text)
    reviewer: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index("reviews_image", "image_id", "at"),)


class JobRow(Table):
    """Work that outlives its request; `result` is where its outcome is."""

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


class AuditRow(Table):
    """A link of the audit's chain. `detail` is the JSON text that was hashed, byte for byte."""

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


class AuditHeadRow(Table):
    """The chain's last link, in its one row: what appends take turns by, and what shows that the end was cut."""

    __tablename__ = "audit_head"

    one: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(SHA256))
