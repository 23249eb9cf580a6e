"""TODO"""

from datetime import UTC, datetime


def now() -> datetime:
    """The present in UTC, as every table stores time."""
    return datetime.now(UTC)
