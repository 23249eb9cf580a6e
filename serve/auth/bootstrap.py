"""The first admin, so that an empty database can be used at all.

`python -m serve.auth.bootstrap [state.url=...]` makes it where nobody sees what the endpoint says when it starts.
"""

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.config.schema import Config
from chestai.errors import UserError
from serve.auth.api_keys import add_user, make_key
from serve.db.audit import AuditEvent, append
from serve.db.database import Database, serialise_writes, url_of
from serve.db.models import UserRow

NAME = "admin"


def first_admin(database: Database) -> str | None:
    """Make the user `admin` in a database without users and return its key, to be shown once; else None.

    Of several replicas that start at once exactly one makes it.
    """
    with database.writing() as session:
        serialise_writes(session, "first admin")
        if session.scalar(select(func.count()).select_from(UserRow)):
            return None
        add_user(session, NAME, "admin")
        key = make_key(session, NAME)
        append(session, AuditEvent(actor="system", action="user.first", object=NAME))
        return key


def create_first_admin(config: Config) -> str | None:
    """The key of the first admin of the configured database, whose tables are made at need; None: there are users.

    Raises:
        UserError: the database cannot be used.
    """
    database = Database(url_of(config))
    try:
        database.migrate()
        return first_admin(database)
    except (DBAPIError, PoolTimeout) as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise UserError(f"the database {database.name} does not answer: {reason}") from error
    finally:
        database.close()


def run(config: Config, screen: Screen) -> None:
    """The command: make the first admin, or say that there is one. Raises as `made`."""
    key = create_first_admin(config)
    if key is None:
        screen.say("there are users already: an admin makes keys by POST /keys")
    else:
        screen.say(f"the first admin's key, shown this once: {key}")


if __name__ == "__main__":
    main("serve.auth.bootstrap", run)
