"""Refusals are counted together, in bounded memory, and none is lost while the database refuses them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.auth import refusals
from serve.auth.refusals import OTHERS, RefusalLog
from serve.db.audit import AuditEvent


class Saved:
    """Keeps saved events. down: refuses them."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.down = False

    def __call__(self, *events: AuditEvent) -> None:
        if self.down:
            raise OSError("down")
        self.events += events

    def counts(self) -> dict[tuple[str, str, object], int]:
        counts: dict[tuple[str, str, object], int] = {}
        for event in self.events:
            key = (event.actor, event.object, event.detail["reason"])
            counts[key] = counts.get(key, 0) + event.detail["count"]
        return counts


def test_counts_each_actor_route_and_reason_once() -> None:
    saved = Saved()
    log = RefusalLog(saved)
    for route in ("GET /keys", "POST /infer", "GET /keys"):
        log.add("nobody", route, "unauthorised")
    log.add("rita", "GET /keys", "forbidden")
    log.flush()
    log.flush()
    assert len(saved.events) == 3 and saved.counts() == {
        ("nobody", "GET /keys", "unauthorised"): 2,
        ("nobody", "POST /infer", "unauthorised"): 1,
        ("rita", "GET /keys", "forbidden"): 1,
    }
    assert all(event.detail["since"] <= event.at.isoformat() for event in saved.events)


def test_keeps_counts_that_could_not_be_saved() -> None:
    saved = Saved()
    log, saved.down = RefusalLog(saved), True
    log.add("nobody", "GET /keys", "unauthorised")
    with pytest.raises(OSError, match="down"):
        log.flush()
    log.add("nobody", "GET /keys", "unauthorised")
    saved.down = False
    log.flush()
    assert saved.counts() == {("nobody", "GET /keys", "unauthorised"): 2}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_COUNTERS", 10)
    saved = Saved()
    log = RefusalLog(saved)
    for number in range(1000):
        log.add(f"oidc:{number}", "GET /keys", "forbidden")
    log.flush()
    assert len(saved.events) == 11 and sum(saved.counts().values()) == 1000
    assert saved.counts()[OTHERS, "GET /keys", "forbidden"] == 990


def test_counts_from_many_threads() -> None:
    saved = Saved()
    log = RefusalLog(saved)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(400):
            pool.submit(log.add, "nobody", "GET /keys", "unauthorised")
            pool.submit(log.flush)
    log.flush()
    assert sum(saved.counts().values()) == 400


def test_flushes_periodically_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "INTERVAL_S", 0.01)
    saved = Saved()
    log = RefusalLog(saved)

    async def run() -> None:
        async with log.periodic_flush():
            saved.down = True
            log.add("nobody", "GET /keys", "unauthorised")
            await asyncio.sleep(0.05)
            saved.down = False
            async with asyncio.timeout(10):
                while not saved.events:
                    await asyncio.sleep(0.01)
            log.add("nobody", "GET /keys", "unauthorised")

    asyncio.run(run())
    assert sum(saved.counts().values()) == 2
