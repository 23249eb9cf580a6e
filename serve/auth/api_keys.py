"""Users and their API keys.

A key is `chestai_<prefix>_<secret>`. The prefix identifies it in lists and logs. The database holds its SHA-256: slow
hashes are for passwords, which can be guessed; 256 random bits cannot, and keys are checked with every request.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.auth.grace_cache import GraceCache
from serve.auth.permissions import ROLES, SCOPES, Principal, Role, Scope
from serve.db.database import Database, is_unavailable, serialise_writes
from serve.db.models import KeyRow, UserRow

KEY_PREFIX = "chestai_"
PREFIX_PATTERN = re.compile(r"[0-9a-f]{12}")
KEY_PATTERN = re.compile(r"chestai_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
USER_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")


@dataclass(frozen=True)
class ApiKey:
    """The public part of a key."""

    prefix: str
    owner: str
    scopes: tuple[Scope, ...] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def add_user(session: Session, name: str, role: Role) -> None:
    """Adds a user.

    Raises:
        ValueError: The name is taken or has characters other than letters, digits and `._@-`, or the role is unknown.
    """
    if not USER_NAME_PATTERN.fullmatch(name):
        raise ValueError(f"user {name!r}: 1 to 100 letters, digits and ._@-")
    if role not in ROLES:
        raise ValueError(f"role {role!r}: choose one of {', '.join(ROLES)}")
    if session.get(UserRow, name) is not None:
        raise ValueError(f"there is a user {name!r} already")
    session.add(UserRow(name=name, role=role, disabled=False, created_at=now()))
    session.flush()


def ensure_user(session: Session, name: str, role: Role | None) -> None:
    """Adds a user unless there is one; never changes a role, since that would change all keys of the user.

    Raises:
        ValueError: The user is unknown and has no role, is disabled, or has another role; or as `add_user`.
    """
    lock_users(session)
    row = session.get(UserRow, name)
    if row is None:
        if role is None:
            raise ValueError(f"there is no user {name!r}: name its role to add it")
        add_user(session, name, role)
    elif row.disabled:
        raise ValueError(f"the user {name!r} is disabled: a key would not work")
    elif role not in (None, row.role):
        raise ValueError(f"the user {name!r} is {row.role}, not {role}: leave out role, or name another owner")


def lock_users(session: Session) -> None:
    """Makes other changes of users and keys wait until the end of the transaction."""
    serialise_writes(session, "users")


def disable_user(session: Session, name: str, disabled: bool = True) -> None:
    """Disables or enables all keys of a user. Raises ValueError for an unknown user."""
    _load_user(session, name).disabled = disabled


def create_key(
    session: Session, owner: str, scopes: Collection[Scope] | None = None, lifetime: timedelta | None = None
) -> str:
    """Creates a key of a user and returns it; it cannot be shown again.

    Args:
        scopes: Scopes of the key; None for everything that the user's role allows.
        lifetime: None for a key that does not expire.

    Raises:
        ValueError: The user or a scope is unknown, the scopes are empty, or the lifetime is not positive.
    """
    _load_user(session, owner)
    unknown = [scope for scope in scopes or () if scope not in SCOPES]
    if unknown or (scopes is not None and not scopes):
        raise ValueError(f"scopes {unknown}: choose some of {', '.join(SCOPES)}")
    if lifetime is not None and lifetime <= timedelta(0):
        raise ValueError(f"lifetime {lifetime} must be longer than nothing")
    created_at = now()
    prefix = secrets.token_hex(6)
    key = f"{KEY_PREFIX}{prefix}_{secrets.token_urlsafe(32)}"
    session.add(
        KeyRow(
            prefix=prefix,
            hash=_hash(key),
            owner=owner,
            scopes=None if scopes is None else sorted(scopes),
            created_at=created_at,
            expires_at=None if lifetime is None else created_at + lifetime,
        )
    )
    session.flush()
    return key


class LastAdminKey(RuntimeError):
    """Without this key, nobody could manage keys."""


def revoke_key(session: Session, prefix: str) -> None:
    """Revokes a key.

    Raises:
        ValueError: No key has this prefix.
        LastAdminKey: It is the last key in `list_admin_keys`.
    """
    lock_users(session)  # two admins must not revoke each other's keys at the same time
    row = session.get(KeyRow, prefix) if PREFIX_PATTERN.fullmatch(prefix) else None
    if row is None:
        raise ValueError(f"there is no key {prefix}")
    if [key.prefix for key in list_admin_keys(session)] == [prefix]:
        raise LastAdminKey(f"{prefix} is the last key of an admin: make another first")
    row.revoked_at = row.revoked_at or now()


def list_keys(session: Session) -> list[ApiKey]:
    """Returns all keys, oldest first."""
    rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at, KeyRow.prefix))
    return [_to_api_key(row) for row in rows]


def list_admin_keys(session: Session) -> list[ApiKey]:
    """Returns the keys that can manage keys now: of enabled admins, not revoked, not expired, with that scope."""
    is_valid = and_(KeyRow.revoked_at.is_(None), or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > now()))
    is_admin = and_(UserRow.role == "admin", UserRow.disabled.is_(False))
    rows = session.scalars(select(KeyRow).join(UserRow, UserRow.name == KeyRow.owner).where(is_valid, is_admin))
    return [key for key in map(_to_api_key, rows) if key.scopes is None or "keys" in key.scopes]


@dataclass(frozen=True)
class ConfirmedKey:
    """A valid key as of the last lookup."""

    hash: str
    principal: Principal
    expires_at: datetime | None


class ApiKeyAuthenticator:
    """Finds the owner of a key. It asks the database every time, so that revoking a key takes effect at once.

    While the database is down, it accepts keys that were valid within the last hour, so that inference goes on.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = now) -> None:
        self._database, self._clock = database, clock
        self._cache: GraceCache[ConfirmedKey] = GraceCache()  # by prefix

    def authenticate(self, key: str) -> Principal | None:
        """Returns the principal of a key; None if it is unknown, revoked or expired, or its owner is disabled.

        Raises:
            DBAPIError, TimeoutError: The database is down, and the key is not cached.
        """
        match = KEY_PATTERN.fullmatch(key)
        if match is None:
            return None
        prefix, present = match[1], self._clock()
        try:
            found = self._load(prefix)
            self._cache.confirm(prefix, found, present)
        except Exception as error:
            found = self._cache.find(prefix, present)
            if found is None or not is_unavailable(error):
                raise
        return _check_key(key, found, present)

    def recall(self, key: str) -> Principal | None:
        """Returns the principal of a key that was valid within the last hour, without asking the database."""
        match, present = KEY_PATTERN.fullmatch(key), self._clock()
        return None if match is None else _check_key(key, self._cache.find(match[1], present), present)

    def _load(self, prefix: str) -> ConfirmedKey | None:
        with self._database.read_session() as session:
            rows = session.execute(
                select(KeyRow, UserRow).join(UserRow, UserRow.name == KeyRow.owner).where(KeyRow.prefix == prefix)
            ).one_or_none()
        return None if rows is None else confirm_key(*rows)


def _check_key(key: str, found: ConfirmedKey | None, present: datetime) -> Principal | None:
    """Returns the principal if the whole key is right and has not expired."""
    matches = hmac.compare_digest(_hash(key), found.hash if found is not None else "")
    if found is None or not matches or (found.expires_at is not None and found.expires_at <= present):
        return None
    return found.principal


def confirm_key(key: KeyRow, user: UserRow) -> ConfirmedKey | None:
    """Returns what a key and its owner say, whether it has expired or not; None if it was revoked, or they disabled."""
    if key.revoked_at is not None or user.disabled or user.role not in ROLES:
        return None
    role: Role = next(role for role in ROLES if role == user.role)
    scopes = _scopes(key)
    return ConfirmedKey(
        key.hash, Principal(user.name, role, None if scopes is None else frozenset(scopes)), key.expires_at
    )


def _to_api_key(row: KeyRow) -> ApiKey:
    return ApiKey(row.prefix, row.owner, _scopes(row), row.created_at, row.expires_at, row.revoked_at)


def _scopes(key: KeyRow) -> tuple[Scope, ...] | None:
    return None if key.scopes is None else tuple(scope for scope in SCOPES if scope in key.scopes)


def _load_user(session: Session, name: str) -> UserRow:
    row = session.get(UserRow, name)
    if row is None:
        raise ValueError(f"there is no user {name!r}")
    return row


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
