"""The first admin: its key is made last and shown at once, and made again where no admin's key works."""

import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.model.bundle import Bundle
from serve.auth.api_keys import ApiKeyAuthenticator, add_user, create_key, disable_user, list_admin_keys
from serve.auth.bootstrap import add_first_admin, create_first_admin
from serve.auth.permissions import Principal
from serve.db.audit import verify_chain
from serve.db.database import Database, database_url
from serve.db.models import KeyRow, UserRow
from serve.deployments.preflight import check_start
from tests.serve.support.certificates import copy_with


def set_keys(session: Session, **values: object) -> None:
    for row in session.scalars(select(KeyRow)):
        for name, value in values.items():
            setattr(row, name, value)


USELESS: dict[str, Callable[[Session], None]] = {
    "revoked": lambda session: set_keys(session, revoked_at=now()),
    "expired": lambda session: set_keys(session, expires_at=now() - timedelta(seconds=1)),
    "of other scopes": lambda session: set_keys(session, scopes=["read", "infer"]),
    "of a disabled admin": lambda session: disable_user(session, "admin"),
    "of a former admin": lambda session: setattr(session.get_one(UserRow, "admin"), "role", "reader"),
}


@pytest.mark.parametrize("case", USELESS)
def test_makes_a_key_again_where_no_key_of_an_admin_works(database: Database, case: str) -> None:
    assert add_first_admin(database) is not None
    with database.write_session() as session:
        add_user(session, "rita", "reader")
        create_key(session, "rita")
    assert add_first_admin(database) is None
    with database.write_session() as session:
        USELESS[case](session)
    key = add_first_admin(database)
    assert key is not None and add_first_admin(database) is None
    name = "admin-2" if case.startswith(("of a disabled", "of a former")) else "admin"
    assert ApiKeyAuthenticator(database).authenticate(key) == Principal(name, "admin")
    assert verify_chain(database).rows == 2


def test_key_that_could_not_be_shown_does_not_exist(database: Database) -> None:
    def fail(key: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        add_first_admin(database, fail)
    shown: list[str] = []
    assert add_first_admin(database, shown.append) == shown[0]
    assert ApiKeyAuthenticator(database).authenticate(shown[0]) is not None


def test_start_on_a_taken_port_makes_no_key(champion: tuple[Config, Bundle], tmp_path: Path) -> None:
    config = copy_with(champion[0], state=copy_with(champion[0].state, url=f"sqlite:///{tmp_path}/state.db"))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = copy_with(config, serve=copy_with(config.serve, port=holder.getsockname()[1]))
        with pytest.raises(UserError, match="cannot listen"):
            check_start(taken)
    check_start(config)
    database = Database(database_url(config))
    with database.read_session() as session:
        assert list_admin_keys(session) == [] and session.scalars(select(UserRow)).all() == []
    database.close()


def test_says_when_the_last_key_of_an_admin_expires(database: Database, tmp_path: Path) -> None:
    config = conf.load([f"lake={tmp_path}/lake", f"state.url={database.url.render_as_string(False)}"])
    said: list[str] = []
    assert create_first_admin(config, said.append) and "shown this once: chestai_" in said.pop()
    assert not create_first_admin(config, said.append) and said == []
    with database.write_session() as session:
        set_keys(session, expires_at=now() + timedelta(days=3))
    assert not create_first_admin(config, said.append)
    assert said.pop().startswith(f"no admin's key is valid after {now() + timedelta(days=3):%Y-%m-%d}")
    with database.write_session() as session:
        create_key(session, "admin")
    assert not create_first_admin(config, said.append) and said == []
