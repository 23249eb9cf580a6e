"""Rate limits: a client over its limit gets 429 with Retry-After; others are unaffected."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select

from serve.api.services import Services
from serve.auth import api_keys, rate_limit
from serve.auth.bootstrap import add_first_admin
from serve.auth.rate_limit import RateLimiter, client_network
from serve.db.models import AuditRow
from tests.serve.support.hostile import WHOLE
from tests.serve.support.local import Reply, local_app, send_request


class Clock:
    """A clock that a test sets, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_admits_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(30, 3, clock)  # one every two seconds
    assert [limiter.acquire("a") for _ in range(5)] == [0, 0, 0, 2, 2]
    assert limiter.acquire("b") == 0
    clock.now += 1.5
    assert limiter.acquire("a") == 1
    clock.now += 0.5
    assert [limiter.acquire("a") for _ in range(2)] == [0, 2]
    clock.now += 1000
    assert [limiter.acquire("a") for _ in range(4)] == [0, 0, 0, 2]
    assert not any(RateLimiter(None, 1, clock).acquire("a") for _ in range(100))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 600), st.integers(1, 10))
def test_never_exceeds_the_limit_and_the_returned_wait_suffices(pauses: list[float], minute: int, burst: int) -> None:
    clock = Clock()
    limiter, passed = RateLimiter(minute, burst, clock), []
    for pause in pauses:
        clock.now += pause
        wait = limiter.acquire("a")
        if wait:
            clock.now += wait
            assert limiter.acquire("a") == 0
        passed.append(clock.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = burst + (passed[last] - passed[first]) * minute / 60
            assert last - first + 1 <= allowed + 1e-6


def test_threads_share_the_limit() -> None:
    limiter = RateLimiter(60, 50, Clock())
    barrier = threading.Barrier(8)

    def take() -> int:
        barrier.wait()
        return sum(limiter.acquire("a") == 0 for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert sum(one.result() for one in [pool.submit(take) for _ in range(8)]) == 50


def test_drops_idle_buckets_and_bounds_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_BUCKETS", 100)
    clock = Clock()
    limiter = RateLimiter(60, 2, clock)
    for number in range(1000):
        limiter.acquire(str(number))
        assert len(limiter) <= 100
    clock.now += 3
    limiter.acquire("late")
    assert len(limiter) == 1


def test_client_network_groups_ipv6_by_64() -> None:
    assert (
        client_network("2001:db8:1:2::5") == client_network("2001:db8:1:2:ffff::9") != client_network("2001:db8:1:3::5")
    )
    assert client_network("::ffff:192.0.2.7") == client_network("192.0.2.7") == "192.0.2.7"
    assert client_network("192.0.2.8") != client_network("192.0.2.7")
    assert client_network("testclient") == "testclient"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False, "auth.required=true", "auth.requests_per_minute=1", "auth.burst=3")


def get(app: FastAPI, path: str, key: str | None, client: str = "192.0.2.1") -> Reply:
    return send_request(app, path, headers={} if key is None else {"x-api-key": key}, method="GET", client=client)


def test_limits_a_user_across_keys_and_addresses(app: FastAPI) -> None:
    services: Services = app.state.services
    admin = add_first_admin(services.state.store.database)
    with services.state.store.database.write_session() as session:
        api_keys.add_user(session, "rita", "reader")
        keys = [api_keys.create_key(session, "rita") for _ in range(2)]
    replies = [get(app, "/studies", keys[number % 2], f"192.0.2.{number}") for number in range(5)]
    assert [one.status for one in replies] == [200, 200, 200, 429, 429], "all keys and addresses are the same user's"
    assert replies[3].json()["code"] == "too_many_requests"
    assert 1 <= int(replies[3].headers["retry-after"]) <= 60
    assert get(app, "/studies", admin).status == 200
    assert send_request(app, "/infer", [WHOLE], {"x-api-key": keys[0]}).status == 429
    assert {get(app, "/health/live", keys[0]).status for _ in range(10)} == {200}


def test_limits_failed_authentication_by_address(app: FastAPI) -> None:
    services: Services = app.state.services
    admin = add_first_admin(services.state.store.database)
    assert get(app, "/studies", admin).status == 200
    guesses = [None, "chestai_0123456789ab_" + "x" * 43, "token", None, None]
    assert [get(app, "/studies", guess).status for guess in guesses] == [401, 401, 401, 429, 429]
    assert get(app, "/studies", None, "192.0.2.2").status == 401
    assert get(app, "/studies", admin).status == 200, "a known key is not limited by others at the same address"
    assert {get(app, "/health/ready", None).status for _ in range(10)} == {200}


def test_limits_by_address_when_no_key_is_required(tmp_path: Path) -> None:
    app = local_app(tmp_path, False, "auth.requests_per_minute=1", "auth.burst=3")
    assert [get(app, "/studies", None).status for _ in range(4)] == [200, 200, 200, 429]
    assert get(app, "/studies", None, "192.0.2.2").status == 200


def test_new_key_at_a_flooded_address_waits_for_its_turn(app: FastAPI) -> None:
    """Otherwise guessed keys would be looked up without a limit."""
    services: Services = app.state.services
    admin = add_first_admin(services.state.store.database)
    for _ in range(3):
        get(app, "/studies", None)
    assert get(app, "/studies", admin).status == 429
    replies = [get(app, "/studies", admin, "192.0.2.2").status for _ in range(3)]
    assert replies == [200] * 3, "its first request counts for the user, not for the address, too"
    assert [get(app, "/studies", None, "192.0.2.2").status for _ in range(4)] == [401, 401, 401, 429]


def test_requests_over_the_limit_do_not_reach_the_database(app: FastAPI) -> None:
    services: Services = app.state.services
    statements: list[str] = []

    @event.listens_for(services.state.store.database.engine, "before_cursor_execute")
    def count(connection: object, cursor: object, statement: str, *more: object) -> None:
        statements.append(statement)

    for number in range(20):
        get(app, "/studies", f"chestai_{number:012x}_" + "x" * 43)
    assert len([statement for statement in statements if "api_keys" in statement]) == 3
    services.state.refusals.flush()
    with services.state.store.database.read_session() as session:
        (row,) = session.scalars(select(AuditRow))
    assert json.loads(row.detail)["count"] == 3, "requests over the limit are not recorded"
