"""API keys from creation to revocation, and the table of permissions."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from chestai.clock import now
from serve.auth.api_keys import (
    ApiKeyAuthenticator,
    add_user,
    create_key,
    disable_user,
    list_keys,
    revoke_key,
)
from serve.auth.authenticator import Authenticator
from serve.auth.bootstrap import add_first_admin
from serve.auth.grace_cache import GRACE_PERIOD
from serve.auth.permissions import ANONYMOUS, PERMISSIONS, ROLES, SCOPES, Principal, authorise, owns
from serve.auth.sessions import SessionAuthenticator
from serve.db.audit import verify_chain
from serve.db.database import Database
from serve.db.models import AuditRow, KeyRow
from tests.serve.support.processes import run_forked

# Route -> the minimum role, None for everybody.
EXPECTED = {
    "POST /infer": "reader",
    "POST /predict": "reader",
    "POST /batch_infer": "reader",
    "POST /batch_predict": "reader",
    "POST /dicomweb/studies": "reader",
    "POST /dicomweb/studies/{study}": "reader",
    "GET /fhir/{kind}": "reader",
    "POST /fhir/{kind}/_search": "reader",
    "GET /fhir/{kind}/{resource_id}": "reader",
    "GET /jobs": "reader",
    "GET /jobs/{job_id}": "reader",
    "DELETE /jobs/{job_id}": "reader",
    "GET /images/{image_id}": "reader",
    "GET /images/{image_id}/heatmap": "reader",
    "GET /images/{image_id}/file": "reader",
    "GET /images/{image_id}/preview": "reader",
    "GET /images/{image_id}/map": "reader",
    "GET /images/{image_id}/priors": "reader",
    "POST /images/{image_id}/priors": "reader",
    "GET /images/{image_id}/report": "reader",
    "GET /studies/summary": "reader",
    "GET /agreement": "reader",
    "POST /studies/{image_id}/claim": "reviewer",
    "DELETE /studies/{image_id}/claim": "reviewer",
    "GET /studies": "reader",
    "GET /model": "reader",
    "GET /model/history": "reader",
    "GET /model/card": "reader",
    "GET /drift_report": "reader",
    "GET /metrics": "reader",
    "POST /reviews": "reviewer",
    "GET /audit": "admin",
    "GET /keys": "admin",
    "POST /keys": "admin",
    "DELETE /keys/{prefix}": "admin",
    "GET /": None,
    "GET /health": None,
    "GET /health/live": None,
    "GET /health/ready": None,
    "GET /docs": None,
    "GET /ui": None,
    "GET /ui/{path:path}": None,
    "GET /openapi.json": None,
    "GET /fhir/metadata": None,
    "GET /session": None,
    "POST /session": None,
    "DELETE /session": None,
    "GET /session/oidc": None,
    "GET /session/oidc/callback": None,
}
RANK = {"reader": 0, "reviewer": 1, "admin": 2}


def test_every_endpoint_has_a_permission() -> None:
    assert {f"{method} {route}" for method, route in PERMISSIONS} == set(EXPECTED)


@pytest.mark.parametrize("endpoint", EXPECTED)
def test_authorise_compares_role_and_scope(endpoint: str) -> None:
    method, route = endpoint.split()
    minimum = EXPECTED[endpoint]
    assert authorise(None, method, route) == ("allowed" if minimum is None else 401)
    for role in ROLES:
        sufficient = minimum is None or RANK[role] >= RANK[minimum]
        assert authorise(Principal("p", role), method, route) == ("allowed" if sufficient else 403), role
        assert authorise(Principal("p", role, frozenset()), method, route) == ("allowed" if minimum is None else 403)
        allowed = [s for s in SCOPES if authorise(Principal("p", role, frozenset({s})), method, route) == "allowed"]
        assert len(allowed) == (len(SCOPES) if minimum is None else 1 if sufficient else 0)


def test_authorise_rejects_unknown_routes() -> None:
    admin = Principal("root", "admin")
    for method, route in (("GET", "/admin"), ("PUT", "/infer"), ("OPTIONS", "/infer"), ("GET", "/images/../keys")):
        assert (authorise(admin, method, route), authorise(None, method, route)) == (403, 401)
    assert authorise(None, "HEAD", "/health/live") == "allowed" and authorise(None, "HEAD", "/studies") == 401
    assert authorise(ANONYMOUS, "POST", "/reviews") == "allowed" and authorise(ANONYMOUS, "GET", "/keys") == 403


def test_jobs_belong_to_their_owner_and_admins() -> None:
    assert owns(Principal("rita", "reader"), "rita") and owns(Principal("root", "admin"), "rita")
    assert not owns(Principal("rita", "reviewer"), "sam")


@pytest.fixture
def users(database: Database) -> Database:
    with database.write_session() as session:
        for name, role in zip(("rae", "rita", "ada"), ROLES, strict=True):
            add_user(session, name, role)
    return database


def create(database: Database, owner: str, scopes: Sequence[str] | None = None, hours: float | None = None) -> str:
    with database.write_session() as session:
        return create_key(session, owner, scopes, None if hours is None else timedelta(hours=hours))  # type: ignore[arg-type]


def test_key_authenticates_its_owner(users: Database) -> None:
    authenticator = ApiKeyAuthenticator(users)
    for name, role in zip(("rae", "rita", "ada"), ROLES, strict=True):
        assert authenticator.authenticate(create(users, name)) == Principal(name, role)
    assert authenticator.authenticate(create(users, "rita", ["review", "read"])) == Principal(
        "rita", "reviewer", frozenset({"read", "review"})
    )


def test_database_holds_only_the_hash_of_a_key(users: Database) -> None:
    key = create(users, "ada", hours=1)
    with users.read_session() as session:
        row = session.scalars(select(KeyRow)).one()
        (listed,) = list_keys(session)
    assert key not in str(vars(row)) and key.split("_", 2)[2] not in str(vars(row)) and len(row.hash) == 64
    assert key.startswith(f"chestai_{listed.prefix}_") and listed.owner == "ada" and listed.scopes is None
    assert listed.expires_at == listed.created_at + timedelta(hours=1) and listed.revoked_at is None


def test_rejects_altered_keys(users: Database) -> None:
    authenticator, key = ApiKeyAuthenticator(users), create(users, "ada")
    prefix = key.split("_")[1]
    other = create(users, "ada").split("_", 2)[2]
    last = "A" if key[-1] != "A" else "B"
    wrong = ["", "chestai_", key[:-1], key[:-1] + last, key + "x", key.upper(), f" {key}", f"{key}\n", prefix]
    wrong += [f"chestai_{prefix}_{other}", f"chestai_{'0' * 12}_{other}", f"chestai_{prefix}_", "chestai_%_" + other]
    assert [one for one in wrong if authenticator.authenticate(one) is not None] == []
    assert authenticator.authenticate(key) is not None


def test_rejects_revoked_and_expired_keys_and_those_of_disabled_users(users: Database) -> None:
    clock = [now()]
    authenticator = ApiKeyAuthenticator(users, lambda: clock[0])
    revoked, brief, lasting = create(users, "ada"), create(users, "ada", hours=1), create(users, "ada")
    assert None not in [authenticator.authenticate(key) for key in (revoked, brief, lasting)]
    with users.write_session() as session:
        revoke_key(session, revoked.split("_")[1])
    assert authenticator.authenticate(revoked) is None and authenticator.authenticate(lasting) is not None
    clock[0] += timedelta(hours=1, seconds=5)
    assert authenticator.authenticate(brief) is None and authenticator.authenticate(lasting) is not None
    with users.write_session() as session:
        disable_user(session, "ada")
    assert authenticator.authenticate(lasting) is None
    with users.write_session() as session:
        disable_user(session, "ada", False)
    assert authenticator.authenticate(lasting) is not None


def test_revoking_again_keeps_the_first_time(users: Database) -> None:
    prefix = create(users, "rita").split("_")[1]
    times: list[datetime | None] = []
    for _ in range(2):
        with users.write_session() as session:
            revoke_key(session, prefix)
            times += [one.revoked_at for one in list_keys(session)]
    assert times[0] is not None and times[0] == times[1]


def test_rejects_invalid_users_scopes_and_lifetimes(users: Database) -> None:
    with users.write_session() as session:
        for name, role, words in (("ada", "reader", "already"), ("a:b", "reader", "letters"), ("x", "god", "choose")):
            with pytest.raises(ValueError, match=words):
                add_user(session, name, role)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no user 'nobody'"):
            create_key(session, "nobody")
        for scopes in (["all"], []):
            with pytest.raises(ValueError, match="choose some of infer, read"):
                create_key(session, "ada", scopes)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="longer than nothing"):
            create_key(session, "ada", lifetime=timedelta(0))
        with pytest.raises(ValueError, match="no key 123"):
            revoke_key(session, "123")


def test_accepts_cached_keys_while_the_database_is_down(users: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [now()]
    authenticator = ApiKeyAuthenticator(users, lambda: clock[0])
    cached, brief, uncached, revoked = (create(users, "rita", hours=hours) for hours in (None, 0.5, None, None))
    for key in (cached, brief, revoked):
        assert authenticator.authenticate(key) is not None
    with users.write_session() as session:
        revoke_key(session, revoked.split("_")[1])
    assert authenticator.authenticate(revoked) is None
    unreachable = Database("postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(authenticator, "_database", unreachable)
    assert authenticator.authenticate(cached) == Principal("rita", "reviewer")
    assert authenticator.authenticate(cached[:-1] + ("A" if cached[-1] != "A" else "B")) is None
    for key in (uncached, revoked):
        with pytest.raises(DBAPIError):
            authenticator.authenticate(key)
    clock[0] += timedelta(minutes=31)
    assert authenticator.authenticate(brief) is None and authenticator.authenticate(cached) is not None
    clock[0] += GRACE_PERIOD
    with pytest.raises(DBAPIError):
        authenticator.authenticate(cached)


def make_authenticator(database: Database, required: bool = True) -> Authenticator:
    sessions = SessionAuthenticator(database, timedelta(minutes=30))
    return Authenticator(ApiKeyAuthenticator(database), sessions, None, required)


def authenticate(
    authenticator: Authenticator, authorization: str | None, key: str | None = None, session: str | None = None
) -> Principal | None:
    """Returns the principal of the headers Authorization and X-API-Key, and of the token in the cookie."""
    caller = authenticator.recall(authorization, key, session)
    return caller.principal if caller.look_up is None else caller.look_up()


def test_reads_keys_from_both_headers(users: Database) -> None:
    key = create(users, "rita")
    authenticator = make_authenticator(users)
    rita = Principal("rita", "reviewer")
    for headers in ((f"Bearer {key}",), (f"bearer  {key}",), (None, key)):
        assert authenticate(authenticator, *headers) == rita
    refused = [None, "", "Bearer", "Bearer ", key, f"Basic {key}", "Bearer " + "x" * 10_000, "Bearer a.b.c"]
    assert [header for header in refused if authenticate(authenticator, header) is not None] == []
    assert authenticate(authenticator, f"Bearer {key}", "chestai_wrong") is None, (
        "a valid key in the other header does not help"
    )
    optional = make_authenticator(users, required=False)
    assert authenticate(optional, None) == ANONYMOUS and authenticate(optional, f"Bearer {key}") == rita
    assert authenticate(optional, "Bearer wrong") is None


def test_recalls_only_keys_that_were_valid_lately(users: Database) -> None:
    clock = [now()]
    authenticator = ApiKeyAuthenticator(users, lambda: clock[0])
    key, brief = create(users, "rita"), create(users, "rita", hours=0.5)
    assert authenticator.recall(key) is None, "never seen"
    for one in (key, brief):
        assert authenticator.authenticate(one) == authenticator.recall(one) == Principal("rita", "reviewer")
    assert authenticator.recall(key[:-1] + ("A" if key[-1] != "A" else "B")) is None, "the right prefix is not enough"
    clock[0] += timedelta(minutes=31)
    assert authenticator.recall(brief) is None and authenticator.recall(key) is not None
    clock[0] += GRACE_PERIOD
    assert authenticator.recall(key) is None


FIRST = """
from serve.auth.bootstrap import add_first_admin
from serve.db.database import Database
database = Database(url)
database.migrate()
print(add_first_admin(database) or "")
"""


def test_one_of_several_replicas_creates_the_first_admin(url: str) -> None:
    (key,) = run_forked(FIRST, url).split()
    database = Database(url)
    assert ApiKeyAuthenticator(database).authenticate(key) == Principal("admin", "admin")
    assert add_first_admin(database) is None
    with database.read_session() as session:
        row = session.scalars(select(AuditRow)).one()
    assert (row.action, row.object) == ("user.first", "admin") and key not in row.detail
    assert verify_chain(database).rows == 1
    database.close()


def test_one_of_several_threads_creates_the_first_admin(database: Database) -> None:
    barrier = threading.Barrier(5)

    def start(number: int) -> str | None:
        barrier.wait()
        return add_first_admin(database)

    with ThreadPoolExecutor(5) as pool:
        assert len([key for key in pool.map(start, range(5)) if key]) == 1
