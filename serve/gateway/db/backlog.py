"""How many deliveries there are for each destination, and since when the oldest waits."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.gateway.db.deliveries import WAITING
from serve.gateway.db.models import DeliveryRow


@dataclass(frozen=True)
class Backlog:
    """The deliveries for a destination.

    Attributes:
        destination: Its name.
        counts: State -> how many, for states with any.
        oldest_s: Seconds since the oldest that waits was queued; 0 if none waits.
    """

    destination: str
    counts: Mapping[str, int]
    oldest_s: float


def load_backlogs(session: Session) -> list[Backlog]:
    """The destinations that anything was queued for, by name. Counts from the index of the queue alone."""
    row = DeliveryRow
    grouped = select(row.destination, row.state, func.count(), func.min(row.number)).group_by(
        row.destination, row.state
    )
    counts, oldest = defaultdict[str, dict[str, int]](dict), dict[str, int]()
    for destination, state, count, first in session.execute(grouped):
        counts[destination][state] = count
        if state == WAITING:
            oldest[destination] = first
    return [Backlog(name, counts[name], _find_age(session, name, oldest.get(name))) for name in sorted(counts)]


def _find_age(session: Session, destination: str, number: int | None) -> float:
    """Seconds since a delivery was queued; 0 for none, or one that was sent meanwhile."""
    if number is None:
        return 0.0
    row = DeliveryRow
    at = session.scalar(
        select(row.created_at).where(row.destination == destination, row.state == WAITING, row.number == number)
    )
    return 0.0 if at is None else max(0.0, (now() - at).total_seconds())
