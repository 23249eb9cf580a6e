"""The first admin, without whom nobody can use an empty database."""

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.config.schema import Config
from chestai.errors import UserError
from serve.auth.api_keys import add_user, create_key
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database, database_url, error_summary, serialise_writes
from serve.db.models import UserRow

ADMIN_NAME = "admin"


def add_first_admin(database: Database) -> str | None:
    """Creates the user `admin` if there are no users, and returns its key, which is shown only this once; else None.

    Of several replicas that start at the same time, exactly one creates it.
    """
    with database.write_session() as session:
        serialise_writes(session, "first admin")
        if session.scalar(select(func.count()).select_from(UserRow)):
            return None
        add_user(session, ADMIN_NAME, "admin")
        key = create_key(session, ADMIN_NAME)
        append_event(session, AuditEvent(actor="system", action="user.first", object=ADMIN_NAME))
        return key


def create_first_admin(config: Config) -> str | None:
    """Creates the tables and the first admin of the configured database; returns its key, or None if there are users.

    Raises:
        UserError: The database cannot be used.
    """
    database = Database(database_url(config))
    try:
        database.migrate()
        return add_first_admin(database)
    except (DBAPIError, PoolTimeout) as error:
        raise UserError(f"the database {database.name} does not answer: {error_summary(error)}") from error
    finally:
        database.close()
