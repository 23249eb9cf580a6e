"""Who asks too often is told when to come back; nobody else notices."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from serve.api.services import Services
from serve.auth import api_keys, rate_limit
from serve.auth.bootstrap import first_admin
from serve.auth.rate_limit import RateLimiter, client_network
from serve.db.models import AuditRow
from tests.serve.support.hostile import WHOLE
from tests.serve.support.local import Reply, ask, local_app


class Clock:
    """Seconds, as a test sets them."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    clock = Clock()
    buckets = RateLimiter(30, 3, clock)  # one every two seconds
    assert [buckets.wait_s("a") for _ in range(5)] == [0, 0, 0, 2, 2]
    assert buckets.wait_s("b") == 0
    clock.now += 1.5
    assert buckets.wait_s("a") == 1
    clock.now += 0.5
    assert [buckets.wait_s("a") for _ in range(2)] == [0, 2]
    clock.now += 1000
    assert [buckets.wait_s("a") for _ in range(4)] == [0, 0, 0, 2]
    assert not any(RateLimiter(None, 1, clock).wait_s("a") for _ in range(100))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 600), st.integers(1, 10))
def test_never_more_than_the_limit_and_the_wait_told_is_enough(pauses: list[float], minute: int, burst: int) -> None:
    clock = Clock()
    buckets, passed = RateLimiter(minute, burst, clock), []
    for pause in pauses:
        clock.now += pause
        wait = buckets.wait_s("a")
        if wait:
            clock.now += wait
            assert buckets.wait_s("a") == 0
        passed.append(clock.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = burst + (passed[last] - passed[first]) * minute / 60
            assert last - first + 1 <= allowed + 1e-6


def test_threads_get_no_more() -> None:
    buckets = RateLimiter(60, 50, Clock())
    start = threading.Barrier(8)

    def take() -> int:
        start.wait()
        return sum(buckets.wait_s("a") == 0 for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert sum(one.result() for one in [pool.submit(take) for _ in range(8)]) == 50


def test_whoever_is_idle_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MOST", 100)
    clock = Clock()
    buckets = RateLimiter(60, 2, clock)
    for number in range(1000):
        buckets.wait_s(str(number))
        assert buckets.known() <= 100
    clock.now += 3
    buckets.wait_s("late")
    assert buckets.known() == 1


def test_one_network_is_one_address() -> None:
    assert (
        client_network("2001:db8:1:2::5") == client_network("2001:db8:1:2:ffff::9") != client_network("2001:db8:1:3::5")
    )
    assert client_network("::ffff:192.0.2.7") == client_network("192.0.2.7") == "192.0.2.7"
    assert client_network("192.0.2.8") != client_network("192.0.2.7")
    assert client_network("testclient") == "testclient"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False, "auth.required=true", "auth.requests_per_minute=1", "auth.burst=3")


def got(app: FastAPI, path: str, key: str | None, client: str = "192.0.2.1") -> Reply:
    return ask(app, path, headers={} if key is None else {"x-api-key": key}, method="GET", client=client)


def test_a_user_who_asks_too_often_is_told_when_to_come_back(app: FastAPI) -> None:
    services: Services = app.state.services
    admin = first_admin(services.store.database)
    with services.store.database.writing() as session:
        api_keys.add_user(session, "rita", "reader")
        two = [api_keys.make_key(session, "rita") for _ in range(2)]
    replies = [got(app, "/studies", two[number % 2], f"192.0.2.{number}") for number in range(5)]
    assert [one.status for one in replies] == [200, 200, 200, 429, 429], "keys and addresses are of one user"
    assert replies[3].json()["code"] == "too_many_requests"
    assert 1 <= int(replies[3].headers["retry-after"]) <= 60
    assert got(app, "/studies", admin).status == 200
    assert ask(app, "/infer", [WHOLE], {"x-api-key": two[0]}).status == 429
    assert {got(app, "/health/live", two[0]).status for _ in range(10)} == {200}


def test_those_who_guess_are_slowed_down_by_address(app: FastAPI) -> None:
    services: Services = app.state.services
    admin = first_admin(services.store.database)
    guesses = [None, "chestai_0123456789ab_" + "x" * 43, "token", None, None]
    assert [got(app, "/studies", guess).status for guess in guesses] == [401, 401, 401, 429, 429]
    assert got(app, "/studies", None, "192.0.2.2").status == 401
    assert got(app, "/studies", admin).status == 200, "whoever has a good key is not held up by others at his address"
    assert {got(app, "/health/ready", None).status for _ in range(10)} == {200}


def test_without_keys_addresses_are_counted(tmp_path: Path) -> None:
    app = local_app(tmp_path, False, "auth.requests_per_minute=1", "auth.burst=3")
    assert [got(app, "/studies", None).status for _ in range(4)] == [200, 200, 200, 429]
    assert got(app, "/studies", None, "192.0.2.2").status == 200


def test_what_is_over_the_limit_does_not_fill_the_audit(app: FastAPI) -> None:
    services: Services = app.state.services
    for _ in range(20):
        got(app, "/studies", None)
    with services.store.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 3
