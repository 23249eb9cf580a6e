"""The worklist in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chestai.triage.rule import Bucket
from serve.db.models import PositiveRow, WorklistRow
from serve.db.worklist.row import URGENCY


@dataclass(frozen=True)
class BucketCounts:
    """Studies of a triage bucket."""

    total: int
    unreviewed: int


@dataclass(frozen=True)
class BucketSummary:
    """The counts of each triage bucket."""

    urgent: BucketCounts
    soon: BucketCounts
    routine: BucketCounts


class WorklistSummary(BaseModel):
    """Numbers of studies at a time.

    escalated: unreviewed ones that have waited longer than `max_wait_minutes`. splits, findings: unreviewed studies by
    split and by positive finding of the newest prediction.
    """

    at: datetime
    max_wait_minutes: float
    total: int
    unreviewed: int
    escalated: int
    buckets: BucketSummary
    splits: dict[str, int]
    findings: dict[str, int]


def summarise_worklist(session: Session, max_wait_minutes: float, at: datetime) -> WorklistSummary:
    """Counts the studies of the worklist."""
    row, waiting = WorklistRow, (WorklistRow.leads, WorklistRow.reviewed_at.is_(None))
    totals = _count(session, select(row.urgency, func.count()).where(row.leads).group_by(row.urgency))
    unreviewed = _count(session, select(row.urgency, func.count()).where(*waiting).group_by(row.urgency))
    overdue = row.received_at <= at - timedelta(minutes=max_wait_minutes)
    escalated = session.scalar(select(func.count()).select_from(row).where(*waiting, overdue)) or 0
    splits = select(row.split, func.count()).where(*waiting, row.split.is_not(None)).group_by(row.split)
    positive = PositiveRow.image_id == row.image_id
    buckets = {
        bucket: BucketCounts(totals.get(URGENCY[bucket], 0), unreviewed.get(URGENCY[bucket], 0))
        for bucket in get_args(Bucket)
    }
    findings = select(PositiveRow.finding, func.count()).join(row, positive).where(*waiting)
    return WorklistSummary(
        at=at,
        max_wait_minutes=max_wait_minutes,
        total=sum(totals.values()),
        unreviewed=sum(unreviewed.values()),
        escalated=escalated,
        buckets=BucketSummary(**buckets),
        splits=_count(session, splits),
        findings=_count(session, findings.group_by(PositiveRow.finding)),
    )


def _count(session: Session, query: Any) -> dict[Any, int]:
    rows: Sequence[Any] = session.execute(query).all()
    return {key: count for key, count in sorted(rows)}
