"""Reviews: readers' verdicts, and how often they agree with the model."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from serve.db.database import serialise_writes
from serve.db.models import ReviewRow, WorklistRow
from serve.db.records import Review, Verdict
from serve.db.worklist.row import find_review_time

AGREEING: tuple[Verdict, ...] = ("TP", "TN")
DISAGREEING: tuple[Verdict, ...] = ("FP", "FN")


@dataclass(frozen=True)
class VerdictCounts:
    """Verdicts that stand. agreement: share of TP and TN among TP, TN, FP and FN, 0 to 1; None if there are none."""

    TP: int
    FP: int
    TN: int
    FN: int
    unsure: int
    agreement: float | None

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "VerdictCounts":
        """From the number of each verdict."""
        agreeing = sum(counts.get(verdict, 0) for verdict in AGREEING)
        decided = agreeing + sum(counts.get(verdict, 0) for verdict in DISAGREEING)
        numbers = {name: counts.get(name, 0) for name in (*AGREEING, *DISAGREEING, "unsure")}
        return cls(**numbers, agreement=agreeing / decided if decided else None)


@dataclass(frozen=True)
class FindingAgreement:
    """The verdicts on a finding of a model version."""

    finding: str
    model_version: int
    verdicts: VerdictCounts


@dataclass(frozen=True)
class ReaderAgreement:
    """A reader's verdicts."""

    reviewer: str
    verdicts: VerdictCounts


@dataclass(frozen=True)
class DayAgreement:
    """The verdicts of a day (UTC), as YYYY-MM-DD."""

    day: str
    verdicts: VerdictCounts


@dataclass(frozen=True)
class Agreement:
    """How often readers agree with the model, in the order of finding and version, reader, and day."""

    findings: list[FindingAgreement]
    readers: list[ReaderAgreement]
    days: list[DayAgreement]


def record_review(session: Session, review: Review) -> None:
    """Writes a verdict; a stored one with the same ID stays unchanged."""
    serialise_writes(session, review.image_id)
    if session.get(ReviewRow, review.review_id) is not None:
        return
    session.add(ReviewRow(**review.model_dump()))
    session.flush()
    row = session.get(WorklistRow, review.image_id)
    if row is not None:
        row.reviewed_at = find_review_time(session, review.image_id)


def measure_agreement(session: Session, since: datetime) -> Agreement:
    """Counts the verdicts given since a time: the latest of each reader on a finding of an image and model version."""
    later = aliased(ReviewRow)
    names = ("image_id", "model_version", "finding", "reviewer")
    is_same = [getattr(later, name) == getattr(ReviewRow, name) for name in names]
    is_later = or_(later.at > ReviewRow.at, and_(later.at == ReviewRow.at, later.review_id > ReviewRow.review_id))
    stands = (ReviewRow.at >= since, ReviewRow.verdict != "withdrawn", ~exists().where(*is_same, is_later))
    keys = (ReviewRow.finding, ReviewRow.model_version, ReviewRow.reviewer, _day(session), ReviewRow.verdict)
    findings: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    readers: dict[str, Counter[str]] = defaultdict(Counter)
    days: dict[str, Counter[str]] = defaultdict(Counter)
    for finding, version, reader, day, verdict, count in session.execute(
        select(*keys, func.count()).where(*stands).group_by(*keys)
    ):
        for counts in (findings[finding, version], readers[reader], days[day]):
            counts[verdict] += count
    return Agreement(
        [FindingAgreement(*key, VerdictCounts.of(counts)) for key, counts in sorted(findings.items())],
        [ReaderAgreement(reader, VerdictCounts.of(counts)) for reader, counts in sorted(readers.items())],
        [DayAgreement(day, VerdictCounts.of(counts)) for day, counts in sorted(days.items())],
    )


def _day(session: Session) -> ColumnElement[str]:
    """The day of a review in UTC, as YYYY-MM-DD."""
    if session.get_bind().dialect.name == "postgresql":
        return func.to_char(func.timezone("UTC", ReviewRow.at), "YYYY-MM-DD")
    return func.strftime("%Y-%m-%d", ReviewRow.at)
