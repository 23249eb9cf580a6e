"""The first admin, so that an empty database can be used at all."""

from sqlalchemy import func, select

from serve.audit import Event, append
from serve.auth.keys import add_user, make_key
from serve.state.database import Database, take_turns
from serve.state.tables import UserRow

NAME = "admin"


def first_admin(database: Database) -> str | None:
    """Make the user `admin` in a database without users and return its key, to be shown once; else None.

    Of several replicas that start at once exactly one makes it.
    """
    with database.writing() as session:
        take_turns(session, "first admin")
        if session.scalar(select(func.count()).select_from(UserRow)):
            return None
        add_user(session, NAME, "admin")
        key = make_key(session, NAME)
        append(session, Event(actor="system", action="user.first", object=NAME))
        return key
