"""Users and their API keys.

A key is `chestai_<prefix>_<secret>`. The prefix names it in lists and logs. Stored is the SHA-256 of the whole: a slow
hash protects passwords, which can be guessed; 256 random bits cannot, and a key is checked with every request.
"""

import hashlib
import hmac
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.auth.permissions import ROLES, SCOPES, Principal, Role, Scope
from serve.db.database import Database, is_unavailable
from serve.db.models import KeyRow, UserRow

MARK = "chestai_"
FORM = re.compile(r"chestai_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
GRACE = timedelta(hours=1)  # a key that was good so lately is taken on trust while the database is away
PAUSE_S = 2.0  # between two questions to a database that is away, for each may take seconds
REMEMBERED = 10_000  # keys


@dataclass(frozen=True)
class ApiKey:
    """What may be shown of a key."""

    prefix: str
    owner: str
    scopes: tuple[Scope, ...] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def add_user(session: Session, name: str, role: Role) -> None:
    """A new user.

    Raises:
        ValueError: a name that is taken or not made of letters, digits and `._@-`, or an unknown role.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"user {name!r}: 1 to 100 letters, digits and ._@-")
    if role not in ROLES:
        raise ValueError(f"role {role!r}: choose one of {', '.join(ROLES)}")
    if session.get(UserRow, name) is not None:
        raise ValueError(f"there is a user {name!r} already")
    session.add(UserRow(name=name, role=role, disabled=False, created_at=now()))
    session.flush()


def disable_user(session: Session, name: str, disabled: bool = True) -> None:
    """From now on no key of this user is taken, or again. Raises ValueError: there is no such user."""
    _user(session, name).disabled = disabled


def make_key(
    session: Session, owner: str, scopes: Collection[Scope] | None = None, lifetime: timedelta | None = None
) -> str:
    """A new key of a user; this is the only time that it is seen.

    Args:
        scopes: what it is narrowed to, None for all that the user's role may.
        lifetime: None: until it is revoked.

    Raises:
        ValueError: no such user, an unknown scope, or a lifetime that is over.
    """
    _user(session, owner)
    strange = [scope for scope in scopes or () if scope not in SCOPES]
    if strange or (scopes is not None and not scopes):
        raise ValueError(f"scopes {strange}: choose some of {', '.join(SCOPES)}")
    if lifetime is not None and lifetime <= timedelta(0):
        raise ValueError(f"lifetime {lifetime} must be longer than nothing")
    made = now()
    prefix = secrets.token_hex(6)
    key = f"{MARK}{prefix}_{secrets.token_urlsafe(32)}"
    session.add(
        KeyRow(
            prefix=prefix,
            hash=_hash(key),
            owner=owner,
            scopes=None if scopes is None else sorted(scopes),
            created_at=made,
            expires_at=None if lifetime is None else made + lifetime,
        )
    )
    session.flush()
    return key


def revoke_key(session: Session, prefix: str) -> None:
    """From now on the key is refused. Raises ValueError: there is none with this prefix."""
    row = session.get(KeyRow, prefix)
    if row is None:
        raise ValueError(f"there is no key {prefix}")
    row.revoked_at = row.revoked_at or now()


def list_keys(session: Session) -> list[ApiKey]:
    """All keys, by age."""
    rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at, KeyRow.prefix))
    return [
        ApiKey(
            prefix=row.prefix,
            owner=row.owner,
            scopes=None if row.scopes is None else tuple(scope for scope in SCOPES if scope in row.scopes),
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )
        for row in rows
    ]


@dataclass(frozen=True)
class _Known:
    """A key as it was last seen in the database."""

    hash: str
    principal: Principal
    expires_at: datetime | None
    seen_at: datetime


class ApiKeyAuthenticator:
    """Tells whose a key is. Asks the database every time, so that what is revoked is refused at once.

    While the database is away, so that inference goes on, a key that was good within the last hour is still taken.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = now) -> None:
        self._database, self._clock = database, clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._away_until = -math.inf

    def principal(self, key: str) -> Principal | None:
        """Whose a key is; None where it is unknown, revoked, expired, or its owner disabled.

        Raises:
            DBAPIError: the database is away, and this key was not seen lately.
        """
        form = FORM.fullmatch(key)
        if form is None:
            return None
        prefix, present = form[1], self._clock()
        known = self._remembered(prefix, present) if time.monotonic() < self._away_until else None
        try:
            known = known or self._look_up(prefix, present)
        except Exception as error:
            self._away_until = time.monotonic() + PAUSE_S
            known = self._remembered(prefix, present)
            if known is None or not is_unavailable(error):
                raise
        right = hmac.compare_digest(_hash(key), known.hash if known is not None else "")
        if known is None or not right or (known.expires_at is not None and known.expires_at <= present):
            return None
        return known.principal

    def _look_up(self, prefix: str, present: datetime) -> _Known | None:
        with self._database.reading() as session:
            found = session.execute(
                select(KeyRow, UserRow).join(UserRow, UserRow.name == KeyRow.owner).where(KeyRow.prefix == prefix)
            ).one_or_none()
        known = None if found is None else _good(*found, present)
        with self._lock:
            self._known.pop(prefix, None)
            if known is not None:
                self._known[prefix] = known  # the newest last
                while len(self._known) > REMEMBERED:
                    del self._known[next(iter(self._known))]
        return known

    def _remembered(self, prefix: str, present: datetime) -> _Known | None:
        with self._lock:
            known = self._known.get(prefix)
        return known if known is not None and present - known.seen_at <= GRACE else None


def _good(key: KeyRow, user: UserRow, present: datetime) -> _Known | None:
    if key.revoked_at is not None or user.disabled or user.role not in ROLES:
        return None
    role: Role = next(role for role in ROLES if role == user.role)
    scopes = None if key.scopes is None else frozenset(scope for scope in SCOPES if scope in key.scopes)
    return _Known(key.hash, Principal(user.name, role, scopes), key.expires_at, present)


def _user(session: Session, name: str) -> UserRow:
    row = session.get(UserRow, name)
    if row is None:
        raise ValueError(f"there is no user {name!r}")
    return row


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
