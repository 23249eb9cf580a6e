"""Sessions from sign-in to their end, on both kinds of database."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from chestai.clock import now
from serve.auth import api_keys, sessions
from serve.auth.grace_cache import GRACE_PERIOD
from serve.auth.permissions import Principal, Role, Scope
from serve.auth.sessions import SEEN_INTERVAL, SessionAuthenticator
from serve.db.database import Database
from serve.db.models import KeyRow, SessionRow, UserRow

HOURS, IDLE = timedelta(hours=8), timedelta(minutes=30)
ANN = Principal("oidc:ann", "reviewer")


@dataclass
class Site:
    """A database, and an authenticator with a clock that the test sets."""

    database: Database
    authenticator: SessionAuthenticator
    time: datetime

    def wait(self, **time: float) -> None:
        self.time += timedelta(**time)

    def open(self, principal: Principal = ANN, key: str | None = None) -> str:
        with self.database.write_session() as session:
            prefix = None if key is None else key.split("_")[1]
            return sessions.open_session(session, principal, HOURS, prefix)[0]

    def open_by_key(self, name: str, role: Role, scopes: set[Scope] | None = None, hours: float | None = None) -> str:
        with self.database.write_session() as session:
            api_keys.add_user(session, name, role)
            key = api_keys.create_key(session, name, scopes, None if hours is None else timedelta(hours=hours))
        return self.open(Principal(name, role, None if scopes is None else frozenset(scopes)), key)

    def find(self, token: str) -> Principal | None:
        found = self.authenticator.authenticate(token)
        return None if found is None else found.principal

    def rows(self) -> list[SessionRow]:
        with self.database.read_session() as session:
            return list(session.scalars(select(SessionRow).order_by(SessionRow.created_at)))

    def change(self, change: Callable[..., object]) -> None:
        with self.database.write_session() as session:
            change(session)


@pytest.fixture
def site(database: Database) -> Site:
    def clock() -> datetime:
        return made.time

    made = Site(database, SessionAuthenticator(database, IDLE, clock), now())
    return made


def test_token_stands_for_its_user(site: Site) -> None:
    tokens = {site.open(): ANN, site.open_by_key("rita", "reader"): Principal("rita", "reader")}
    narrowed = Principal("ada", "admin", frozenset({"read", "review"}))
    tokens[site.open_by_key("ada", "admin", {"review", "read"})] = narrowed
    assert {token: site.find(token) for token in tokens} == tokens


def test_database_holds_only_the_hash_of_a_token(site: Site) -> None:
    tokens = {site.open() for _ in range(20)}
    assert len(tokens) == 20 and all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens), "256 bits"
    with site.database.read_session() as session:
        stored = str(session.execute(text("SELECT * FROM sessions")).all())
    assert not [token for token in tokens if token in stored]


def test_rejects_altered_tokens(site: Site) -> None:
    token = site.open()
    (row,) = site.rows()
    last = "A" if token[-1] != "A" else "B"
    wrong = [
        "",
        token[:-1],
        token[:-1] + last,
        token + "x",
        f" {token}",
        f"{token}\n",
        token.swapcase(),
        row.hash,
        "%",
        "é",
    ]
    assert [one for one in wrong if site.find(one) is not None] == []
    assert site.find(token) == ANN


def test_ends_after_its_hours_however_much_it_is_used(site: Site) -> None:
    token = site.open()
    for _ in range(23):
        site.wait(minutes=20)
        assert site.find(token) == ANN
    site.wait(minutes=20, seconds=5)
    assert site.find(token) is None and site.rows() == []


def test_ends_after_the_idle_time(site: Site) -> None:
    used, unused = site.open(), site.open()
    site.wait(minutes=20)
    assert site.find(used) == ANN
    site.wait(minutes=10, seconds=5)
    assert (site.find(used), site.find(unused)) == (ANN, None)
    site.time -= timedelta(minutes=20)
    assert site.find(unused) is None, "it does not revive"


def test_what_a_page_asks_by_itself_is_no_use(site: Site) -> None:
    token = site.open()
    for _ in range(5):
        site.wait(minutes=5)
        assert site.authenticator.authenticate(token, is_use=False) is not None
    assert site.authenticator.recall(token) is not None
    site.wait(minutes=5, seconds=5)
    assert site.authenticator.authenticate(token, is_use=False) is None


def test_use_is_written_once_a_minute(site: Site) -> None:
    token, written = site.open(), set()
    other = SessionAuthenticator(site.database, IDLE, lambda: site.time)
    for _ in range(40):
        site.wait(seconds=6)
        assert site.find(token) == ANN and other.authenticate(token) is not None
        written.add(site.rows()[0].last_seen_at)
    assert 4 <= len(written) <= 5
    assert site.time - max(written) < SEEN_INTERVAL


LOSSES: dict[str, Callable[..., object]] = {
    "the key was revoked": lambda session, prefix: api_keys.revoke_key(session, prefix),
    "the key has expired": lambda session, prefix: session.execute(update(KeyRow).values(expires_at=now())),
    "the user is disabled": lambda session, prefix: api_keys.disable_user(session, "rita"),
    "the role is narrower": lambda session, prefix: session.execute(update(UserRow).values(role="reader")),
    "the role is unknown": lambda session, prefix: session.execute(update(UserRow).values(role="god")),
}
RETURNS = {"revoked_at": None, "expires_at": None}


@pytest.mark.parametrize("loss", LOSSES)
def test_ends_for_good_when_its_key_allows_less(site: Site, loss: str) -> None:
    token, other = site.open_by_key("rita", "reviewer"), site.open()
    assert site.find(token) == Principal("rita", "reviewer")
    prefix = site.rows()[0].key_prefix
    site.change(lambda session: LOSSES[loss](session, prefix))
    site.wait(seconds=1)
    assert site.find(token) is None and site.find(other) == ANN
    site.change(lambda session: session.execute(update(KeyRow).values(RETURNS)))
    site.change(lambda session: session.execute(update(UserRow).values(role="reviewer", disabled=False)))
    assert site.find(token) is None, "what it rested on is back, the session is not"


def test_keeps_its_role_when_the_users_rises(site: Site) -> None:
    token = site.open_by_key("rita", "reader")
    site.change(lambda session: session.execute(update(UserRow).values(role="admin")))
    assert site.find(token) == Principal("rita", "reader")


def test_expires_with_its_key(site: Site) -> None:
    token = site.open_by_key("rita", "reader", hours=0.2)
    assert site.rows()[0].expires_at <= now() + timedelta(hours=0.2)
    assert site.find(token) is not None
    site.wait(minutes=13)
    assert site.find(token) is None


def test_ends_when_its_user_signs_out(site: Site) -> None:
    token, other = site.open(), site.open()
    assert site.find(token) == site.find(other) == ANN
    with site.database.write_session() as session:
        assert sessions.end_session(session, token) == "oidc:ann"
        assert sessions.end_session(session, token) is None
    assert site.find(token) is None and site.find(other) == ANN and len(site.rows()) == 1


def test_opening_one_deletes_those_that_have_expired(site: Site) -> None:
    site.open()
    site.change(lambda session: session.execute(update(SessionRow).values(expires_at=now())))
    token = site.open()
    assert len(site.rows()) == 1 and site.find(token) == ANN


def test_accepts_sessions_of_the_last_hour_while_the_database_is_down(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, idle, unseen, ended = (site.open() for _ in range(4))
    for token in (used, idle, ended):
        assert site.find(token) == ANN
    site.authenticator.forget(ended)
    monkeypatch.setattr(site.authenticator, "_database", Database("postgresql://nobody@127.0.0.1:1/none"))
    for token in (unseen, ended):
        with pytest.raises(DBAPIError):
            site.find(token)
    site.wait(minutes=20)
    assert site.find(used) == ANN
    site.wait(minutes=20)
    assert (site.find(used), site.find(idle)) == (ANN, None)
    site.wait(minutes=15)
    assert site.find(used) == ANN
    site.wait(minutes=10)
    assert site.time - now() > GRACE_PERIOD
    with pytest.raises(DBAPIError):
        site.find(used)


def test_an_end_counts_even_if_it_cannot_be_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token, other = site.open_by_key("rita", "reviewer"), site.open()
    assert site.find(token) is not None
    site.change(lambda session: api_keys.disable_user(session, "rita"))

    def read_only() -> None:
        raise DBAPIError("UPDATE", {}, Exception("read-only"))

    monkeypatch.setattr(site.database, "write_session", read_only)
    assert site.find(token) is None
    site.wait(minutes=5)
    assert site.find(other) == ANN, "and a use that cannot be written is one"


def test_recalls_only_sessions_that_were_open_lately(site: Site) -> None:
    token = site.open()
    assert site.authenticator.recall(token) is None, "never seen"
    assert site.authenticator.authenticate(token) == site.authenticator.recall(token)
    site.wait(minutes=31)
    assert site.authenticator.recall(token) is None
