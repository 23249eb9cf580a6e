"""The first admin, without whom nobody can use an empty database; and a new one where no admin's key works any more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, count

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.config.schema import Config
from chestai.errors import UserError
from serve.auth.api_keys import add_user, create_key, list_admin_keys, lock_users
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database, database_url, error_summary
from serve.db.models import UserRow

ADMIN_NAME = "admin"
NOTICE = timedelta(days=30)  # before the last admin's key expires


def add_first_admin(database: Database, show: Callable[[str], None] | None = None) -> str | None:
    """Creates an admin and its key if no admin has a key that works; returns the key, which is shown only this once.

    Of several replicas that start at the same time, exactly one creates it.

    Args:
        show: Shows the key to a person. It is called before the key is committed, so there is none that nobody saw.
    """
    with database.write_session() as session:
        lock_users(session)
        if list_admin_keys(session):
            return None
        name = _add_admin(session)
        key = create_key(session, name)
        append_event(session, AuditEvent(actor="system", action="user.first", object=name))
        if show is not None:
            show(key)
        return key


def create_first_admin(config: Config, say: Callable[[str], None]) -> bool:
    """Creates the first admin of the configured database and says its key; or says that the admins' keys expire soon.

    Call it last, when the endpoint can be used. Returns whether there is a new key.

    Raises:
        UserError: The database cannot be used.
    """
    with _open_database(config) as database:
        if add_first_admin(database, lambda key: say(f"the first admin's key, shown this once: {key}")) is not None:
            return True
        with database.read_session() as session:
            ends = [key.expires_at for key in list_admin_keys(session)]
    last = max((end for end in ends if end is not None), default=None)
    if last is not None and None not in ends and last < now() + NOTICE:
        say(f"no admin's key is valid after {last:%Y-%m-%d %H:%M} UTC: make another by POST /keys")
    return False


def check_database(config: Config) -> None:
    """Creates the tables. Raises as `create_first_admin`."""
    with _open_database(config):
        pass


@contextmanager
def _open_database(config: Config) -> Iterator[Database]:
    database = Database(database_url(config))
    try:
        database.migrate()
        yield database
    except (DBAPIError, PoolTimeout) as error:
        raise UserError(f"the database {database.name} does not answer: {error_summary(error)}") from error
    finally:
        database.close()


def _add_admin(session: Session) -> str:
    """Returns the name of an enabled admin: `admin`, else `admin-2` and so on; adds it unless it exists."""
    for name in chain([ADMIN_NAME], (f"{ADMIN_NAME}-{number}" for number in count(2))):
        row = session.get(UserRow, name)
        if row is None:
            add_user(session, name, "admin")
        if row is None or (row.role == "admin" and not row.disabled):
            return name
    raise AssertionError("there is always another name")
