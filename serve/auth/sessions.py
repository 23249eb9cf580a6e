"""Sessions: a browser signs in once, and a cookie with a token stands for its user from then on.

The token is 256 random bits, and the database holds its SHA-256, as of API keys. A session ends at its latest time,
after a while without a use, and as soon as what it rests on no longer holds.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Delete, Update, delete, select, update
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.auth.api_keys import confirm_key
from serve.auth.grace_cache import GraceCache
from serve.auth.permissions import ROLES, SCOPES, Principal, Role
from serve.db.database import Database, is_unavailable
from serve.db.models import KeyRow, SessionRow, UserRow

TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{43}")
SEEN_INTERVAL = timedelta(minutes=1)  # between two writes of the last use, so that reading an image is no write


@dataclass(frozen=True)
class BrowserSession:
    """A session that has not ended. expires_at: when it does at the latest."""

    principal: Principal
    last_seen_at: datetime
    expires_at: datetime

    def is_open(self, present: datetime, idle: timedelta) -> bool:
        """Returns whether neither the latest time nor the idle time has come."""
        return present < min(self.expires_at, self.last_seen_at + idle)


def open_session(
    session: Session, principal: Principal, lifetime: timedelta, key_prefix: str | None = None
) -> tuple[str, BrowserSession]:
    """Opens a session, and deletes those that have expired.

    Args:
        key_prefix: Of the API key that the user signed in with; the session expires with it at the latest.

    Returns:
        The token, which cannot be shown again, and the session.
    """
    present = now()
    key = None if key_prefix is None else session.get_one(KeyRow, key_prefix)
    expires_at = present + lifetime
    if key is not None and key.expires_at is not None:
        expires_at = min(expires_at, key.expires_at)
    token = secrets.token_urlsafe(32)
    row = SessionRow(
        hash=_hash(token),
        name=principal.name,
        role=principal.role,
        scopes=None if principal.scopes is None else sorted(principal.scopes),
        key_prefix=key_prefix,
        created_at=present,
        last_seen_at=present,
        expires_at=expires_at,
    )
    session.execute(delete(SessionRow).where(SessionRow.expires_at <= present))
    session.add(row)
    session.flush()
    return token, BrowserSession(principal, present, expires_at)


def end_session(session: Session, token: str) -> str | None:
    """Deletes a session; returns the name of its user, or None if there is no such session."""
    row = session.get(SessionRow, _hash(token))
    if row is not None:
        session.delete(row)
        session.flush()
    return None if row is None else row.name


class SessionAuthenticator:
    """Finds the session of a token. It asks the database every time, so that a session ends for all processes at once.

    While the database is down, it accepts sessions that were open within the last hour, as with API keys.
    """

    def __init__(self, database: Database, idle: timedelta, clock: Callable[[], datetime] = now) -> None:
        self._database, self._idle, self._clock = database, idle, clock
        self._cache: GraceCache[BrowserSession] = GraceCache()  # by hash

    def authenticate(self, token: str, is_use: bool = True) -> BrowserSession | None:
        """Returns the session of a token; None if it has ended or there is none.

        It has ended, too, if the API key behind it was revoked, or the key's owner was disabled or has a lower role.

        Args:
            is_use: Whether the session counts as used now. What a page asks by itself is no use.

        Raises:
            DBAPIError, TimeoutError: The database is down, and the session is not cached.
        """
        if not TOKEN_PATTERN.fullmatch(token):
            return None
        name, present = _hash(token), self._clock()
        try:
            found = self._load(name, present, is_use)
            self._cache.confirm(name, found, present)
        except Exception as error:
            found = self._cache.find(name, present)
            if found is None or not is_unavailable(error):
                raise
        if found is None or not found.is_open(present, self._idle):
            return None
        if is_use:
            found = replace(found, last_seen_at=present)
            self._cache.replace(name, found)
        return found

    def recall(self, token: str) -> BrowserSession | None:
        """Returns a session that was open within the last hour, without asking the database."""
        present = self._clock()
        found = self._cache.find(_hash(token), present)
        return found if found is not None and found.is_open(present, self._idle) else None

    def forget(self, token: str) -> None:
        """Stops accepting a session that was ended, even if the database goes down now."""
        self._cache.confirm(_hash(token), None, self._clock())

    def _load(self, name: str, present: datetime, is_use: bool) -> BrowserSession | None:
        """Loads an open session and writes its use; deletes one that has ended, which thus never revives."""
        with self._database.read_session() as session:
            rows = session.execute(
                select(SessionRow, KeyRow, UserRow)
                .outerjoin(KeyRow, KeyRow.prefix == SessionRow.key_prefix)
                .outerjoin(UserRow, UserRow.name == KeyRow.owner)
                .where(SessionRow.hash == name)
            ).one_or_none()
        if rows is None:
            return None
        row, key, user = rows
        found = _to_session(row) if key is None or _supports(key, user, row, present) else None
        if found is None or not found.is_open(present, self._idle):
            self._write(delete(SessionRow).where(SessionRow.hash == name))
            return None
        if is_use and present - found.last_seen_at >= SEEN_INTERVAL:
            self._write_use(name, present)
        return found

    def _write_use(self, name: str, present: datetime) -> None:
        is_due = SessionRow.last_seen_at <= present - SEEN_INTERVAL  # another process may have been faster
        self._write(update(SessionRow).where(SessionRow.hash == name, is_due).values(last_seen_at=present))

    def _write(self, statement: Update | Delete) -> None:
        """Writes if the database takes writes now: what was read decides about the session, whether it does or not."""
        try:
            with self._database.write_session() as session:
                session.execute(statement)
        except Exception as error:
            if not is_unavailable(error):
                raise


def _supports(key: KeyRow, user: UserRow, row: SessionRow, present: datetime) -> bool:
    """Returns whether the key still allows what the session does."""
    confirmed = confirm_key(key, user)
    if confirmed is None or (confirmed.expires_at is not None and confirmed.expires_at <= present):
        return False
    return ROLES.index(confirmed.principal.role) >= ROLES.index(_role(row))


def _to_session(row: SessionRow) -> BrowserSession:
    scopes = None if row.scopes is None else frozenset(scope for scope in SCOPES if scope in row.scopes)
    return BrowserSession(Principal(row.name, _role(row), scopes), row.last_seen_at, row.expires_at)


def _role(row: SessionRow) -> Role:
    return next(role for role in ROLES if role == row.role)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
