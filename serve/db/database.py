"""The database: an engine for SQLite or PostgreSQL, its migrations and its transactions."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
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
from chestai.lake.alembic_lock import ALEMBIC_LOCK
from chestai.lake.lake import Lake
from serve.db.deadline import DeadlineConnection, DeadlineGuard, check_patience

MIGRATIONS = Path(__file__).parent / "migrations"
DEADLINE_S = 4.0  # of a statement on PostgreSQL
TIMEOUT_S = 3  # for a lock, for a connection, and for one from the pool: the server's reasons come before the deadline
SQLITE_TIMEOUT_S = 5  # for SQLite's single writer

# A peer that vanished is dropped within seconds, and a client that hangs in a transaction does not block the others.
POSTGRESQL_OPTIONS: dict[str, Any] = {
    "connect_timeout": TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "chestai",
    "options": f"-c lock_timeout={TIMEOUT_S}s -c statement_timeout=30s -c idle_in_transaction_session_timeout=30s",
}


def database_url(config: Config) -> str:
    """Returns the URL of the configured database; by default an SQLite file in a local lake.

    Raises:
        UserError: No database is named, and the lake is remote.
    """
    if config.state.url is not None:
        return config.state.url
    lake = Lake(config.lake)
    if not lake.local:
        raise UserError(f"state.url is needed with the remote lake {lake.root}: name a PostgreSQL database")
    return lake.sqlite_url("state", "chestai.db")


def open_existing(config: Config) -> "Database":
    """Opens the configured database without creating it.

    Raises:
        UserError: As `database_url`, or the SQLite file does not exist.
    """
    database = Database(database_url(config))
    file = database.url.database
    if database.url.get_backend_name() == "sqlite" and not (file and Path(file).exists()):
        raise UserError(f"state.url={database.name}: there is no such database yet")
    return database


class Database:
    """A database. Its methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        """Does not connect yet, so it works while the server is down.

        Raises:
            UserError: The URL is not one of SQLite or PostgreSQL.
        """
        self.url = _parse_url(url)
        self.engine = _sqlite(self.url) if self.url.get_backend_name() == "sqlite" else _postgresql(self.url)
        self._write_engine = self.engine.execution_options(begin="BEGIN IMMEDIATE")
        self._guard = DeadlineGuard() if self.url.get_backend_name() == "postgresql" else None

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def read_session(self, deadline_s: float | None = DEADLINE_S) -> Iterator[Session]:
        """Opens a transaction that only reads.

        Args:
            deadline_s: Seconds after which a server that does not answer a statement counts as down; None for no limit.
        """
        with self._limit(deadline_s), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write_session(self, deadline_s: float | None = DEADLINE_S) -> Iterator[Session]:
        """Opens a transaction that is committed at the end of the block and rolled back on an error.

        It waits for SQLite's single writer at the start, since SQLite may refuse to turn a reader into a writer later.

        Args:
            deadline_s: As for `read_session`. The transaction may be committed although it passes.
        """
        with (
            self._limit(deadline_s),
            Session(self._write_engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def _limit(self, deadline_s: float | None) -> AbstractContextManager[None]:
        return nullcontext() if self._guard is None or deadline_s is None else self._guard.limit(deadline_s)

    def migrate(self) -> None:
        """Brings the tables up to date. Replicas that start at the same time take turns.

        Raises:
            UserError: The tables were created by a newer version of this program.
        """
        with self.locked_alembic() as alembic:
            try:
                command.upgrade(alembic, "head")
            except CommandError as error:
                raise UserError(f"state.url={self.name} is of another version of this program: {error}") from error

    @contextmanager
    def locked_alembic(self) -> Iterator[Alembic]:
        """Yields a config for Alembic's commands, in a transaction in which nobody else migrates."""
        with self._write_engine.begin() as connection, ALEMBIC_LOCK:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            serialise_writes(connection, "migrations")
            alembic = Alembic()
            alembic.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            alembic.attributes["connection"] = connection
            yield alembic

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def serialise_writes(connection: Connection | Session, key: str) -> None:
    """Takes a lock by name until the end of the transaction. SQLite needs none: it has a single writer."""
    dialect = connection.get_bind().dialect if isinstance(connection, Session) else connection.dialect
    if dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"chestai {key}", 0))))


def is_unavailable(error: BaseException) -> bool:
    """Returns whether the same write may succeed later because the database is down; otherwise the write is wrong."""
    if isinstance(error, IntegrityError | DataError):
        return False
    return isinstance(error, DBAPIError | PoolTimeout | OSError)


def error_summary(error: Exception) -> str:
    """Returns the first line of a database error: without the statement and its parameters."""
    return str(getattr(error, "orig", error)).strip().splitlines()[0]


def _parse_url(text: str) -> URL:
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
    options = {name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query}
    engine = create_engine(
        url, connect_args=options, pool_pre_ping=True, pool_timeout=TIMEOUT_S, pool_recycle=1800, hide_parameters=True
    )

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> DeadlineConnection:
        check_patience()
        return DeadlineConnection.connect(*arguments, **options)

    return engine


def _sqlite(url: URL) -> Engine:
    # Parameters are notes and file names, so no error may show them.
    engine = create_engine(
        url, connect_args={"timeout": SQLITE_TIMEOUT_S}, pool_timeout=TIMEOUT_S, hide_parameters=True
    )
    file = Path(str(url.database))

    @event.listens_for(engine, "do_connect")
    def create_private_file(dialect: Any, record: Any, arguments: Any, options: Any) -> None:
        # Only a new file may be opened here: closing one drops the locks (POSIX) that other connections of this process
        # hold on it, and another process could then delete the write-ahead log in use, with all later commits.
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not when the driver guesses
        _enable_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Turns on the write-ahead log; retries, since SQLite does not wait for others that do the same to a new file."""
    deadline = time.monotonic() + SQLITE_TIMEOUT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
