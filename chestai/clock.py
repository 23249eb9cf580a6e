"""The current time, in the form that tables store."""

from datetime import UTC, datetime


def now() -> datetime:
    """Returns the current time in UTC."""
    return datetime.now(UTC)
