"""Migrations and transactions, on both kinds of database."""

import os
import stat
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from serve.db.database import Database, database_url, is_unavailable
from serve.db.models import Base, ImageRow, PredictionRow
from serve.db.records import Image
from serve.gateway.db import models as gateway_models
from tests.serve.support.processes import run_forked

assert gateway_models  # its tables are among them
TABLES = {table.name for table in Base.metadata.sorted_tables}
MIGRATE = "from serve.db.database import Database; Database(url).migrate()"


def table_names(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_models_match_the_migrations(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    assert table_names(database) == TABLES


def test_migrates_down_and_up_again(database: Database) -> None:
    for _ in range(2):
        with database.locked_alembic() as alembic:
            command.downgrade(alembic, "base")
        assert table_names(database) == set()
        database.migrate()
        assert table_names(database) == TABLES


def test_replicas_that_start_at_once_migrate_once(url: str) -> None:
    assert run_forked(MIGRATE, url) == ""
    database = Database(url)
    assert table_names(database) == TABLES
    with database.read_session() as session:
        assert session.execute(text("SELECT count(*) FROM audit_head")).scalar() == 1
    database.close()


def test_migrates_its_own_database_while_mlflow_makes_its_tables(tmp_path: Path) -> None:
    registry = Registry(conf.load().tracking, Lake(str(tmp_path / "lake")))
    thread = threading.Thread(target=registry.connect)
    thread.start()
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    while thread.is_alive() and not (tmp_path / "lake" / "mlflow" / "mlflow.db").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    assert thread.is_alive(), "MLflow is not at it any more"
    database.migrate()
    thread.join()
    assert table_names(database) == TABLES
    assert registry.connect().search_experiments(), "MLflow has its tables"
    database.close()


def test_migrate_rejects_tables_of_a_newer_version(database: Database) -> None:
    with database.write_session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="of another version of this program") as raised:
        database.migrate()
    assert "\n" not in str(raised.value)


def test_times_are_returned_in_utc_and_need_a_zone(database: Database) -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=east)
    with database.write_session() as session:
        session.add(ImageRow(**Image(image_id="a" * 64, received_at=moment).model_dump()))
    with database.read_session() as session:
        received_at = session.get_one(ImageRow, "a" * 64).received_at
    assert received_at == moment and received_at.tzinfo == UTC
    with pytest.raises(StatementError, match="has no zone"), database.write_session() as session:
        session.add(ImageRow(image_id="b" * 64, received_at=datetime(2026, 1, 1)))


def test_write_session_rolls_back_and_enforces_foreign_keys(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write_session() as session:
        session.add(ImageRow(image_id="a" * 64, received_at=datetime.now(UTC)))
        session.flush()
        row = PredictionRow(image_id="b" * 64, model_version=1, runtime="torch", probabilities={}, score=0.0)
        row.bucket, row.drivers, row.positives, row.snapshot, row.at = "routine", [], [], "s", datetime.now(UTC)
        session.add(row)
        session.flush()
    with database.read_session() as session:
        assert session.get(ImageRow, "a" * 64) is None


def test_sqlite_file_is_private_and_pragmas_are_set(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state.db"
    database = Database(f"sqlite:///{file}")
    database.migrate()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    with database.read_session() as session:
        pragmas = ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        values = [session.execute(text(f"PRAGMA {name}")).scalar() for name in pragmas]
    assert values == ["wal", 5000, 1, 2]
    database.close()


def test_commits_outlive_another_process_that_closes_its_connections(tmp_path: Path) -> None:
    """SQLite deletes the write-ahead log with the last connection, and knows others by their locks on the file."""
    other = (
        "import sqlite3; reader = sqlite3.connect(url); print(*reader.execute('SELECT id FROM seen')); reader.close()"
    )
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    with database.write_session() as session:
        session.execute(text("CREATE TABLE seen (id INTEGER)"))
    with database.read_session() as first, database.read_session() as second:
        for session in (first, second):  # two connections at a time: the second opens while the first holds its locks
            session.execute(text("SELECT id FROM seen"))
        run_forked(other, str(tmp_path / "state.db"), count=1)
    with database.write_session() as session:
        session.execute(text("INSERT INTO seen VALUES (7)"))
    assert run_forked(other, str(tmp_path / "state.db"), count=1) == "(7,)\n"
    database.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://somebody:hush@here/db", "name a database of sqlite or postgresql"),
        ("nothing", "is no URL of a database"),
        ("sqlite://", "name a file"),
        ("postgresql+psycopg2://u:hush@h/d", "name a database of sqlite or postgresql"),
    ],
)
def test_rejects_other_urls_without_showing_the_password(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Database(url)
    assert "hush" not in str(raised.value)


def test_database_url_follows_the_config(tmp_path: Path) -> None:
    assert database_url(conf.load([f"lake={tmp_path}"])) == f"sqlite:///{tmp_path}/state/chestai.db"
    assert database_url(conf.load(["lake=s3://b/p", "state.url=postgresql://u@h/d"])) == "postgresql://u@h/d"
    with pytest.raises(UserError, match=r"state\.url is needed with the remote lake s3://b/p"):
        database_url(conf.load(["lake=s3://b/p"]))


def test_unreachable_server_is_unavailable() -> None:
    database = Database("postgresql://nobody:hush@127.0.0.1:1/none")
    with pytest.raises(OperationalError) as raised:
        database.migrate()
    assert is_unavailable(raised.value)
    assert not is_unavailable(ValueError()) and not is_unavailable(IntegrityError("", {}, Exception()))
    assert "hush" not in database.name
