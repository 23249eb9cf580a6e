"""The database: an engine for SQLite or PostgreSQL, its migrations, and transactions."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as Alembic
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake

MIGRATIONS = Path(__file__).parent / "migrations"
WAIT_S = 5  # for a lock, a connection of the pool, SQLite's one writer

# A peer that vanished is given up within seconds, and no client that hangs in a transaction holds up the others.
POSTGRESQL: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "chestai",
    "options": f"-c lock_timeout={WAIT_S}s -c statement_timeout=30s -c idle_in_transaction_session_timeout=30s",
}


def url_of(config: Config) -> str:
    """The database that a configuration means.

    Raises:
        UserError: none is named, and the lake is no folder to put one in.
    """
    if config.state.url is not None:
        return config.state.url
    lake = Lake(config.lake)
    if not lake.local:
        raise UserError(f"state.url is needed with the remote lake {lake.root}: name a PostgreSQL database")
    return f"sqlite:///{lake.uri('state', 'chestai.db')}"


def open_existing(config: Config) -> "Database":
    """The database that a configuration means. Raises UserError as `url_of`, and where SQLite has no such file yet."""
    database = Database(url_of(config))
    file = database.url.database
    if database.url.get_backend_name() == "sqlite" and not (file and Path(file).exists()):
        raise UserError(f"state.url={database.name}: there is no such database yet")
    return database


class Database:
    """One database. Its methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet, so that a server that is away is no obstacle.

        Raises:
            UserError: the URL is not one of SQLite or PostgreSQL.
        """
        self.url = _checked(url)
        self.engine = _sqlite(self.url) if self.url.get_backend_name() == "sqlite" else _postgresql(self.url)
        self._writer = self.engine.execution_options(begin="BEGIN IMMEDIATE")

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction, committed at the end of the block, rolled back by an error.

        SQLite's one writer is waited for at the start: a transaction that turns into a writer later can be refused.
        """
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the tables up to date; replicas that start at once take turns.

        Raises:
            UserError: a newer version of this program made the tables.
        """
        with self.migrating() as alembic:
            try:
                command.upgrade(alembic, "head")
            except CommandError as error:
                raise UserError(f"state.url={self.name} is of another version of this program: {error}") from error

    @contextmanager
    def migrating(self) -> Iterator[Alembic]:
        """What Alembic's commands take, within one transaction that nobody else migrates in."""
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            serialise_writes(connection, "migrations")
            alembic = Alembic()
            alembic.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            alembic.attributes["connection"] = connection
            yield alembic

    def close(self) -> None:
        """Drop all connections."""
        self.engine.dispose()


def serialise_writes(connection: Connection | Session, what: str) -> None:
    """Wait until no other transaction is at the same thing, until the end of this one; SQLite has one writer anyway."""
    dialect = connection.get_bind().dialect if isinstance(connection, Session) else connection.dialect
    if dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"chestai {what}", 0))))


def is_unavailable(error: BaseException) -> bool:
    """Whether an error is the database's trouble, so that the same write may succeed later; else the write is wrong."""
    if isinstance(error, IntegrityError | DataError):
        return False
    return isinstance(error, DBAPIError | PoolTimeout | OSError)


def _checked(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise UserError("state.url is no URL of a database, such as postgresql://user@host/database") from error
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
    if url.drivername not in {*drivers, *drivers.values()}:
        raise UserError(f"state.url={url.render_as_string()}: name a database of sqlite or postgresql")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise UserError(f"state.url={url}: name a file, such as sqlite:////var/lib/chestai/state.db")
    return url.set(drivername=drivers.get(url.drivername, url.drivername))


def _postgresql(url: URL) -> Engine:
    own = {name: value for name, value in POSTGRESQL.items() if name not in url.query}
    return create_engine(
        url, connect_args=own, pool_pre_ping=True, pool_timeout=WAIT_S, pool_recycle=1800, hide_parameters=True
    )


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log; SQLite does not wait for others that do the same to a new file."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _sqlite(url: URL) -> Engine:
    # Parameters are notes and file names, so no error may show them.
    engine = create_engine(url, connect_args={"timeout": WAIT_S}, pool_timeout=WAIT_S, hide_parameters=True)
    file = Path(str(url.database))

    @event.listens_for(engine, "do_connect")
    def private(dialect: Any, record: Any, arguments: Any, options: Any) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")  # what was committed outlives a power cut
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine
