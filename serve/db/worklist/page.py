"""The worklist: which study to read next, page by page.

The order `score` is `score_capped` of the queue simulation: studies that have waited longer than the cap come first,
oldest first; then urgent, soon, routine, each by falling score, ties by age. `bucket` ignores the score, and `arrival`
is first in, first out (FIFO) whatever the model predicts.

A cursor holds the time of the first page and the position of the last row. Age and "reviewed" refer to that time, so
each study that was there at the first page is listed exactly once, whatever arrives or is reviewed in between. A study
scored again in between moves to the end, so it may be listed twice, but is never missing.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import ColumnElement, Select, and_, exists, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from chestai.clock import now
from chestai.triage.rule import Bucket
from serve.db.models import ClaimRow, ImageRow, PositiveRow, PredictionRow, WorklistRow
from serve.db.records import FiniteFloat, ImageId
from serve.db.worklist.row import URGENCY
from serve.db.worklist.studies import count_images

MAX_PAGE_SIZE = 500
MAX_SECTIONS = 3
MIN_ID_DIGITS = 6  # of an image ID in a search

SortKey = tuple[InstrumentedAttribute[Any], ...]
BY_AGE: SortKey = (WorklistRow.received_at, WorklistRow.image_id)
BY_SCORE: SortKey = (WorklistRow.urgency, WorklistRow.falling, *BY_AGE)

Order = Literal["score", "bucket", "arrival"]
SORT_KEYS: dict[Order, SortKey] = {"score": BY_SCORE, "bucket": (WorklistRow.urgency, *BY_AGE), "arrival": BY_AGE}


@dataclass(frozen=True)
class WorklistFilter:
    """Conditions on the studies; None for any.

    finding: positive in the newest prediction. search: an image ID or its first digits, at least `MIN_ID_DIGITS`, or a
    whole study ID, patient key or file name.
    """

    bucket: Bucket | None = None
    finding: str | None = None
    split: str | None = None
    reviewed: bool | None = None
    search: str | None = None


@dataclass(frozen=True)
class WorklistEntry:
    """A study in the worklist, by its most urgent image.

    escalated: its position comes from having waited longer than the cap. view to sex: of the corpus, as in
    `serve.db.records.Image`. images: scored ones of the study. claimed_by: who is reading it, until `claimed_until`.
    """

    image_id: str
    file_name: str | None
    received_at: datetime
    split: str | None
    view: str | None
    source: str | None
    patient_key: str | None
    study_id: str | None
    images: int
    age_years: float | None
    sex: str | None
    model_version: int
    score: float
    bucket: Bucket
    drivers: list[tuple[str, float]]
    positives: list[str]
    reviewed_at: datetime | None
    escalated: bool
    claimed_by: str | None
    claimed_until: datetime | None


@dataclass(frozen=True)
class WorklistPage:
    """Studies in order, and the cursor of the next page; None on the last."""

    studies: list[WorklistEntry]
    cursor: str | None


UtcMoment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class _Cursor(BaseModel):
    """The time of the first page, the cap in minutes, and the section and sort key of the last row.

    Clients can forge one, so each field takes only what both databases can compare.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    at: UtcMoment
    minutes: Annotated[FiniteFloat, Field(ge=0, le=1e7)]
    order: Order = "score"
    part: Annotated[int, Field(ge=0, lt=MAX_SECTIONS)] = 0
    urgency: Annotated[int, Field(ge=-1, le=max(URGENCY.values()))] = -1
    falling: Annotated[FiniteFloat, Field(ge=-1, le=0)] = 0.0
    received_at: UtcMoment | None = None
    image_id: ImageId | None = None

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        _ = self.overdue_before
        if (self.received_at is None) != (self.image_id is None):
            raise ValueError("received_at and image_id are the place of one row")
        return self

    @property
    def overdue_before(self) -> datetime:
        """Studies received until then have waited longer than the cap. Raises OverflowError before the year 1."""
        return self.at - timedelta(minutes=self.minutes)

    def encode(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "_Cursor":
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, OverflowError) as error:
            raise ValueError("the cursor is none that a page of this worklist gave") from error


@dataclass(frozen=True)
class _Section:
    """A stretch of the list with its own sort key. Its rows match any of `conditions`, each of which uses an index."""

    conditions: Sequence[ColumnElement[bool]]
    key: SortKey
    escalated: bool = False


def load_page(
    session: Session,
    filters: WorklistFilter,
    max_wait_minutes: float,
    limit: int = 50,
    cursor: str | None = None,
    at: datetime | None = None,
    order: Order = "score",
) -> WorklistPage:
    """Returns a page of the worklist.

    Args:
        filters: The same for all pages.
        max_wait_minutes: The cap; a cursor keeps that of its first page.
        limit: Rows, 1 to `MAX_PAGE_SIZE`.
        cursor: Of the previous page; None for the first.
        at: The time of the first page; by default now.
        order: The same for all pages.

    Raises:
        ValueError: The limit is out of range, or the cursor is invalid or of another order.
    """
    if not 1 <= limit <= MAX_PAGE_SIZE:
        raise ValueError(f"limit={limit} must be from 1 to {MAX_PAGE_SIZE}")
    first = _Cursor(at=at or now(), minutes=max_wait_minutes, order=order)
    position = first if cursor is None else _Cursor.decode(cursor)
    if position.order != order:
        raise ValueError("the cursor is of a worklist in another order: begin at its first page")
    filter_conditions, sections = _filter_conditions(filters), _sections(position, filters.reviewed)
    found: list[tuple[int, Any]] = []  # section number, row
    for number in range(position.part, len(sections)):
        key = sections[number].key
        after = _after(key, position) if number == position.part and position.image_id is not None else []
        missing = limit + 1 - len(found)
        if not missing:
            break
        rows = [
            row
            for condition in sections[number].conditions
            for row in _select_rows(session, key, [*filter_conditions, condition, *after], missing, first.at)
        ]
        rows.sort(key=lambda row: tuple(getattr(row[0], column.key) for column in key))
        found += [(number, row) for row in rows[:missing]]
    studies = [_to_entry(row, sections[number].escalated) for number, row in found[:limit]]
    if len(found) <= limit:
        return WorklistPage(studies, None)
    number, (last, *_) = found[limit - 1]
    values = {column.key: getattr(last, column.key) for column in sections[number].key}
    return WorklistPage(studies, position.model_copy(update={**values, "part": number}).encode())


def _sections(cursor: _Cursor, reviewed: bool | None) -> list[_Section]:
    """Returns the sections of the list, first to last."""
    row = WorklistRow
    unread = (row.reviewed_at.is_(None), row.reviewed_at > cursor.at)
    read = row.reviewed_at <= cursor.at
    overdue, recent = row.received_at <= cursor.overdue_before, row.received_at > cursor.overdue_before
    unmoved, moved = or_(row.moved_at.is_(None), row.moved_at <= cursor.at), row.moved_at > cursor.at
    if cursor.order == "arrival":
        states = [read] if reviewed is True else [*unread] if reviewed is False else [*unread, read]
        return [_Section([and_(state, when) for state in states], BY_AGE) for when in (unmoved, moved)]
    key = SORT_KEYS[cursor.order]
    escalated = _Section([and_(state, overdue) for state in unread], BY_AGE, escalated=True)
    if reviewed is True:
        return [_Section([and_(read, unmoved)], key), _Section([and_(read, moved)], BY_AGE)]
    states = [and_(state, recent) for state in unread] if reviewed is False else [or_(read, recent)]
    return [
        escalated,
        _Section([and_(state, unmoved) for state in states], key),
        _Section([and_(state, moved) for state in states], BY_AGE),
    ]


def _filter_conditions(filters: WorklistFilter) -> list[ColumnElement[bool]]:
    # A search finds every image but priors; otherwise one stands for its study.
    conditions: list[ColumnElement[bool]] = [WorklistRow.leads.is_(True)] if filters.search is None else []
    if filters.bucket is not None:
        conditions.append(WorklistRow.urgency == URGENCY[filters.bucket])
    if filters.split is not None:
        conditions.append(WorklistRow.split == filters.split)
    if filters.finding is not None:
        positive = (PositiveRow.image_id == WorklistRow.image_id, PositiveRow.finding == filters.finding)
        conditions.append(exists().where(*positive))
    if filters.search is not None:
        conditions.append(WorklistRow.image_id.in_(_search(filters.search)))
    return conditions


def _search(text: str) -> Select[Any]:
    """Selects the IDs of the images that a search finds."""
    names = [column == text for column in (ImageRow.study_id, ImageRow.patient_key, ImageRow.file_name)]
    if re.fullmatch(f"[0-9a-f]{{{MIN_ID_DIGITS},64}}", text):
        names.append(ImageRow.image_id.between(text, text + "g"))  # a range uses the index, on both databases
    return select(ImageRow.image_id).where(ImageRow.prior.is_(False), or_(*names))


def _after(key: SortKey, cursor: _Cursor) -> list[ColumnElement[bool]]:
    values = (getattr(cursor, column.key) for column in key)
    return [tuple_(*key) > tuple_(*values, types=[column.type for column in key])]


def _select_rows(
    session: Session, key: SortKey, conditions: Sequence[ColumnElement[bool]], limit: int, at: datetime
) -> Sequence[Any]:
    claimed = and_(ClaimRow.image_id == WorklistRow.image_id, ClaimRow.until > at)
    newest = and_(
        PredictionRow.image_id == WorklistRow.image_id, PredictionRow.model_version == WorklistRow.model_version
    )
    return session.execute(
        select(WorklistRow, PredictionRow, ImageRow, ClaimRow, count_images())
        .join(PredictionRow, newest)
        .join(ImageRow, ImageRow.image_id == WorklistRow.image_id)
        .outerjoin(ClaimRow, claimed)
        .where(*conditions)
        .order_by(*key)
        .limit(limit)
    ).all()


def _to_entry(row: Any, escalated: bool) -> WorklistEntry:
    study, prediction, image, claim, images = row
    return WorklistEntry(
        image_id=study.image_id,
        file_name=image.file_name,
        received_at=study.received_at,
        split=study.split,
        view=image.view,
        source=image.source,
        patient_key=image.patient_key,
        study_id=image.study_id,
        images=max(1, images),
        age_years=image.age_years,
        sex=image.sex,
        model_version=study.model_version,
        score=prediction.score,
        bucket=prediction.bucket,
        drivers=[(finding, weighted) for finding, weighted in prediction.drivers],
        positives=list(prediction.positives),
        reviewed_at=study.reviewed_at,
        escalated=escalated,
        claimed_by=None if claim is None else claim.reader,
        claimed_until=None if claim is None else claim.until,
    )
