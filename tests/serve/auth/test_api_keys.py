"""Who may do what: the whole table, and API keys as they live and end."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from chestai.clock import now
from serve.auth.api_keys import GRACE, ApiKeyAuthenticator, add_user, disable_user, list_keys, make_key, revoke_key
from serve.auth.authenticator import Authenticator
from serve.auth.bootstrap import first_admin
from serve.auth.permissions import ANYBODY, PERMISSIONS, ROLES, SCOPES, Principal, authorise, owns
from serve.db.audit import verify
from serve.db.database import Database
from serve.db.models import AuditRow, KeyRow
from tests.serve.support.processes import forked

# What the issue asks for, written out: route -> the least role, None for everybody.
EXPECTED = {
    "POST /infer": "reader",
    "POST /predict": "reader",
    "POST /batch_infer": "reader",
    "POST /batch_predict": "reader",
    "GET /jobs/{job_id}": "reader",
    "DELETE /jobs/{job_id}": "reader",
    "GET /images/{image_id}": "reader",
    "GET /images/{image_id}/heatmap": "reader",
    "GET /studies": "reader",
    "GET /model": "reader",
    "GET /drift_report": "reader",
    "GET /metrics": "reader",
    "POST /reviews": "reviewer",
    "GET /keys": "admin",
    "POST /keys": "admin",
    "DELETE /keys/{prefix}": "admin",
    "GET /health/live": None,
    "GET /health/ready": None,
    "GET /docs": None,
    "GET /openapi.json": None,
}
RANK = {"reader": 0, "reviewer": 1, "admin": 2}


def test_every_endpoint_has_its_need() -> None:
    assert {f"{method} {route}" for method, route in PERMISSIONS} == set(EXPECTED)


@pytest.mark.parametrize("endpoint", EXPECTED)
def test_every_role_at_every_endpoint(endpoint: str) -> None:
    method, route = endpoint.split()
    least = EXPECTED[endpoint]
    assert authorise(None, method, route) == ("allowed" if least is None else 401)
    for role in ROLES:
        right = least is None or RANK[role] >= RANK[least]
        assert authorise(Principal("p", role), method, route) == ("allowed" if right else 403), role
        assert authorise(Principal("p", role, frozenset()), method, route) == ("allowed" if least is None else 403)
        allowed = [s for s in SCOPES if authorise(Principal("p", role, frozenset({s})), method, route) == "allowed"]
        assert len(allowed) == (len(SCOPES) if least is None else 1 if right else 0)


def test_what_is_not_in_the_table_is_for_nobody() -> None:
    admin = Principal("root", "admin")
    for method, route in (("GET", "/admin"), ("PUT", "/infer"), ("OPTIONS", "/infer"), ("GET", "/images/../keys")):
        assert (authorise(admin, method, route), authorise(None, method, route)) == (403, 401)
    assert authorise(None, "HEAD", "/health/live") == "allowed" and authorise(None, "HEAD", "/studies") == 401
    assert authorise(ANYBODY, "POST", "/reviews") == "allowed" and authorise(ANYBODY, "GET", "/keys") == 403


def test_a_job_is_its_owners_and_the_admins() -> None:
    assert owns(Principal("rita", "reader"), "rita") and owns(Principal("root", "admin"), "rita")
    assert not owns(Principal("rita", "reviewer"), "sam")


@pytest.fixture
def people(database: Database) -> Database:
    with database.writing() as session:
        for name, role in zip(("rae", "rita", "ada"), ROLES, strict=True):
            add_user(session, name, role)
    return database


def made(database: Database, owner: str, scopes: Sequence[str] | None = None, hours: float | None = None) -> str:
    with database.writing() as session:
        return make_key(session, owner, scopes, None if hours is None else timedelta(hours=hours))  # type: ignore[arg-type]


def test_a_key_is_its_owners(people: Database) -> None:
    ring = ApiKeyAuthenticator(people)
    for name, role in zip(("rae", "rita", "ada"), ROLES, strict=True):
        assert ring.principal(made(people, name)) == Principal(name, role)
    assert ring.principal(made(people, "rita", ["review", "read"])) == Principal(
        "rita", "reviewer", frozenset({"read", "review"})
    )


def test_what_is_stored_is_no_key(people: Database) -> None:
    key = made(people, "ada", hours=1)
    with people.reading() as session:
        row = session.scalars(select(KeyRow)).one()
        (shown,) = list_keys(session)
    assert key not in str(vars(row)) and key.split("_", 2)[2] not in str(vars(row)) and len(row.hash) == 64
    assert key.startswith(f"chestai_{shown.prefix}_") and shown.owner == "ada" and shown.scopes is None
    assert shown.expires_at == shown.created_at + timedelta(hours=1) and shown.revoked_at is None


def test_a_key_that_is_not_exactly_right_is_refused(people: Database) -> None:
    ring, key = ApiKeyAuthenticator(people), made(people, "ada")
    prefix = key.split("_")[1]
    other = made(people, "ada").split("_", 2)[2]
    last = "A" if key[-1] != "A" else "B"
    wrong = ["", "chestai_", key[:-1], key[:-1] + last, key + "x", key.upper(), f" {key}", f"{key}\n", prefix]
    wrong += [f"chestai_{prefix}_{other}", f"chestai_{'0' * 12}_{other}", f"chestai_{prefix}_", "chestai_%_" + other]
    assert [one for one in wrong if ring.principal(one) is not None] == []
    assert ring.principal(key) is not None


def test_revoked_expired_disabled(people: Database) -> None:
    clock = [now()]
    ring = ApiKeyAuthenticator(people, lambda: clock[0])
    revoked, brief, lasting = made(people, "ada"), made(people, "ada", hours=1), made(people, "ada")
    assert None not in [ring.principal(key) for key in (revoked, brief, lasting)]
    with people.writing() as session:
        revoke_key(session, revoked.split("_")[1])
    assert ring.principal(revoked) is None and ring.principal(lasting) is not None
    clock[0] += timedelta(hours=1, seconds=5)
    assert ring.principal(brief) is None and ring.principal(lasting) is not None
    with people.writing() as session:
        disable_user(session, "ada")
    assert ring.principal(lasting) is None
    with people.writing() as session:
        disable_user(session, "ada", False)
    assert ring.principal(lasting) is not None


def test_revoked_once_is_revoked_then(people: Database) -> None:
    prefix = made(people, "ada").split("_")[1]
    times: list[datetime | None] = []
    for _ in range(2):
        with people.writing() as session:
            revoke_key(session, prefix)
            times += [one.revoked_at for one in list_keys(session)]
    assert times[0] is not None and times[0] == times[1]


def test_what_is_no_user_or_scope_is_named(people: Database) -> None:
    with people.writing() as session:
        for name, role, words in (("ada", "reader", "already"), ("a:b", "reader", "letters"), ("x", "god", "choose")):
            with pytest.raises(ValueError, match=words):
                add_user(session, name, role)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no user 'nobody'"):
            make_key(session, "nobody")
        for scopes in (["all"], []):
            with pytest.raises(ValueError, match="choose some of infer, read"):
                make_key(session, "ada", scopes)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="longer than nothing"):
            make_key(session, "ada", lifetime=timedelta(0))
        with pytest.raises(ValueError, match="no key 123"):
            revoke_key(session, "123")


def test_while_the_database_is_away_a_known_key_is_taken_for_a_while(
    people: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [now()]
    ring = ApiKeyAuthenticator(people, lambda: clock[0])
    known, brief, unseen, revoked = (made(people, "rita", hours=hours) for hours in (None, 0.5, None, None))
    for key in (known, brief, revoked):
        assert ring.principal(key) is not None
    with people.writing() as session:
        revoke_key(session, revoked.split("_")[1])
    assert ring.principal(revoked) is None
    broken = Database("postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(ring, "_database", broken)
    assert ring.principal(known) == Principal("rita", "reviewer")
    assert ring.principal(known[:-1] + ("A" if known[-1] != "A" else "B")) is None
    for key in (unseen, revoked):
        with pytest.raises(DBAPIError):
            ring.principal(key)
    clock[0] += timedelta(minutes=31)
    assert ring.principal(brief) is None and ring.principal(known) is not None
    clock[0] += GRACE
    with pytest.raises(DBAPIError):
        ring.principal(known)


def test_headers(people: Database) -> None:
    key = made(people, "rita")
    door = Authenticator(ApiKeyAuthenticator(people), None)
    rita = Principal("rita", "reviewer")
    assert [door.principal(f"Bearer {key}"), door.principal(f"bearer  {key}"), door.principal(None, key)] == [rita] * 3
    refused = [None, "", "Bearer", "Bearer ", key, f"Basic {key}", "Bearer " + "x" * 10_000, "Bearer a.b.c"]
    assert [header for header in refused if door.principal(header) is not None] == []
    assert door.principal(f"Bearer {key}", "chestai_wrong") is None, "the wrong one is not made good by the other"
    free = Authenticator(ApiKeyAuthenticator(people), None, required=False)
    assert free.principal(None) == ANYBODY and free.principal(f"Bearer {key}") == rita
    assert free.principal("Bearer wrong") is None


FIRST = """
from serve.auth.bootstrap import first_admin
from serve.db.database import Database
database = Database(url)
database.migrate()
print(first_admin(database) or "")
"""


def test_of_replicas_that_start_at_once_one_makes_the_first_admin(url: str) -> None:
    (key,) = forked(FIRST, url).split()
    database = Database(url)
    assert ApiKeyAuthenticator(database).principal(key) == Principal("admin", "admin")
    assert first_admin(database) is None
    with database.reading() as session:
        row = session.scalars(select(AuditRow)).one()
    assert (row.action, row.object) == ("user.first", "admin") and key not in row.detail
    assert verify(database).rows == 1
    database.close()


def test_of_threads_too(database: Database) -> None:
    ready = threading.Barrier(5)

    def start(number: int) -> str | None:
        ready.wait()
        return first_admin(database)

    with ThreadPoolExecutor(5) as pool:
        assert len([key for key in pool.map(start, range(5)) if key]) == 1
