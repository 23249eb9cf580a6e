"""A clock that a test moves: everything that asks `chestai.clock.now` sees its time."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

import chestai.clock


@dataclass
class Clock:
    """Stands for `datetime` in `chestai.clock`. at: the time, with a zone."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes it the clock of this process until the end of the test."""
        monkeypatch.setattr(chestai.clock, "datetime", self)

    def now(self, zone: tzinfo) -> datetime:
        return self.at.astimezone(zone)

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
