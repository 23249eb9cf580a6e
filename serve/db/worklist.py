"""The worklist: which study is read next, page by page.

The order `score` is that of `queue_simulation`'s `score_capped`: who has waited longer than the cap goes first, the
longest waiting before all; then the urgent before the soon before the routine, within them by score, ties first come.
`bucket` is the same without the score, and `arrival` is first come, first served, whatever the model says.

A cursor holds the moment of the first page and the place of the last row. Age and "reviewed" are as of that moment, so
whoever was there at the first page comes exactly once, whatever arrives and is reviewed meanwhile. A study that is
scored anew meanwhile goes to the end, so it may come twice, and is never left out.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import ColumnElement, and_, exists, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from chestai.clock import now
from chestai.triage.rule import Bucket
from serve.db.models import ImageRow, PositiveRow, PredictionRow, WorklistRow
from serve.db.records import URGENCY, Finite, ImageId

MOST = 500  # rows a page

Key = tuple[InstrumentedAttribute[Any], ...]
AGE: Key = (WorklistRow.received_at, WorklistRow.image_id)
URGENT: Key = (WorklistRow.urgency, WorklistRow.falling, *AGE)

Order = Literal["score", "bucket", "arrival"]
KEYS: dict[Order, Key] = {"score": URGENT, "bucket": (WorklistRow.urgency, *AGE), "arrival": AGE}


@dataclass(frozen=True)
class WorklistFilter:
    """What is asked for; None: any. finding: one that the newest prediction calls positive."""

    bucket: Bucket | None = None
    finding: str | None = None
    split: str | None = None
    reviewed: bool | None = None


@dataclass(frozen=True)
class WorklistEntry:
    """A study in the worklist. `escalated`: it is where it is because it has waited so long."""

    image_id: str
    file_name: str | None
    received_at: datetime
    split: str | None
    model_version: int
    score: float
    bucket: Bucket
    drivers: list[tuple[str, float]]
    positives: list[str]
    reviewed_at: datetime | None
    escalated: bool


@dataclass(frozen=True)
class WorklistPage:
    """Rows in order, and the cursor of the next page; None: this is the last."""

    studies: list[WorklistEntry]
    cursor: str | None


class _Place(BaseModel):
    """What a cursor says: the moment of the first page, the cap, and where the last row stood in which part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    minutes: Annotated[float, Field(ge=0, le=1e7)]
    order: Order = "score"
    part: Annotated[int, Field(ge=0)] = 0
    urgency: int = -1
    falling: Finite = 0.0
    received_at: AwareDatetime | None = None
    image_id: ImageId | None = None

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        _ = self.since
        return self

    @property
    def since(self) -> datetime:
        """Who was received until then has waited for too long. Raises OverflowError before the year 1."""
        return self.at - timedelta(minutes=self.minutes)

    def text(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def of(cls, cursor: str) -> "_Place":
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except (ValueError, OverflowError) as error:
            raise ValueError("the cursor is none that a page of this worklist gave") from error


@dataclass(frozen=True)
class _Part:
    """A stretch of the list with an order of its own. `groups`: together its rows, each found by an index."""

    groups: Sequence[ColumnElement[bool]]
    key: Key
    escalated: bool = False


def page(
    session: Session,
    wanted: WorklistFilter,
    max_wait_minutes: float,
    limit: int = 50,
    cursor: str | None = None,
    at: datetime | None = None,
    order: Order = "score",
) -> WorklistPage:
    """A page of the worklist.

    Args:
        max_wait_minutes: the cap; a cursor keeps that of its first page.
        limit: rows, 1 to `MOST`.
        cursor: of the page before, None for the first. The filter must be the same.
        at: the present, for the first page.
        order: of all pages.

    Raises:
        ValueError: a limit out of range, or a cursor that is none, or of another order.
    """
    if not 1 <= limit <= MOST:
        raise ValueError(f"limit={limit} must be from 1 to {MOST}")
    first = _Place(at=at or now(), minutes=max_wait_minutes, order=order)
    place = first if cursor is None else _Place.of(cursor)
    if place.order != order:
        raise ValueError("the cursor is of a worklist in another order: begin at its first page")
    conditions = _conditions(wanted)
    found: list[WorklistEntry] = []
    parts = _parts(place, wanted.reviewed)
    for number in range(place.part, len(parts)):
        part = parts[number]
        after = _after(part.key, place) if number == place.part and place.image_id is not None else None
        room = limit + 1 - len(found)
        if not room:
            break
        rows = [row for group in part.groups for row in _rows(session, part.key, [*conditions, group], after, room)]
        rows.sort(key=lambda row: tuple(getattr(row[0], column.key) for column in part.key))
        for row in rows[:room]:
            found.append(_listed(row, part.escalated))
            if len(found) <= limit:
                last = (number, row[0])
    if len(found) <= limit:
        return WorklistPage(found, None)
    number, row = last
    mark = {column.key: getattr(row, column.key) for column in parts[number].key}
    return WorklistPage(found[:limit], place.model_copy(update={**mark, "part": number}).text())


def _parts(place: _Place, reviewed: bool | None) -> list[_Part]:
    """The list from its first row to its last."""
    row = WorklistRow
    waiting = (row.reviewed_at.is_(None), row.reviewed_at > place.at)
    read = row.reviewed_at <= place.at
    old, young = row.received_at <= place.since, row.received_at > place.since
    stayed, moved = or_(row.moved_at.is_(None), row.moved_at <= place.at), row.moved_at > place.at
    if place.order == "arrival":
        states = [read] if reviewed is True else [*waiting] if reviewed is False else [*waiting, read]
        return [_Part([and_(one, then) for one in states], AGE) for then in (stayed, moved)]
    key = KEYS[place.order]
    escalated = _Part([and_(state, old) for state in waiting], AGE, escalated=True)
    if reviewed is True:
        return [_Part([and_(read, stayed)], key), _Part([and_(read, moved)], AGE)]
    patient = [and_(state, young) for state in waiting] if reviewed is False else [or_(read, young)]
    rest = [and_(one, stayed) for one in patient]
    return [escalated, _Part(rest, key), _Part([and_(one, moved) for one in patient], AGE)]


def _conditions(wanted: WorklistFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.bucket is not None:
        conditions.append(WorklistRow.urgency == URGENCY[wanted.bucket])
    if wanted.split is not None:
        conditions.append(WorklistRow.split == wanted.split)
    if wanted.finding is not None:
        positive = (PositiveRow.image_id == WorklistRow.image_id, PositiveRow.finding == wanted.finding)
        conditions.append(exists().where(*positive))
    return conditions


def _after(key: Key, place: _Place) -> ColumnElement[bool]:
    return tuple_(*key) > tuple_(*(getattr(place, column.key) for column in key), types=[one.type for one in key])


def _rows(
    session: Session,
    key: Key,
    conditions: Sequence[ColumnElement[bool]],
    after: ColumnElement[bool] | None,
    limit: int,
) -> Sequence[Any]:
    every = [*conditions, *([] if after is None else [after])]
    of_study = and_(
        PredictionRow.image_id == WorklistRow.image_id, PredictionRow.model_version == WorklistRow.model_version
    )
    return session.execute(
        select(WorklistRow, PredictionRow, ImageRow.file_name)
        .join(PredictionRow, of_study)
        .join(ImageRow, ImageRow.image_id == WorklistRow.image_id)
        .where(*every)
        .order_by(*key)
        .limit(limit)
    ).all()


def _listed(found: Any, escalated: bool) -> WorklistEntry:
    row, prediction, file_name = found
    return WorklistEntry(
        image_id=row.image_id,
        file_name=file_name,
        received_at=row.received_at,
        split=row.split,
        model_version=row.model_version,
        score=prediction.score,
        bucket=prediction.bucket,
        drivers=[(finding, weighted) for finding, weighted in prediction.drivers],
        positives=list(prediction.positives),
        reviewed_at=row.reviewed_at,
        escalated=escalated,
    )
