"""Migrations and transactions, on both kinds of database."""

import os
import stat
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
from serve.db.database import Database, is_unavailable, url_of
from serve.db.models import ImageRow, PredictionRow, Table
from serve.db.records import Image
from tests.serve.support.processes import forked

TABLES = {table.name for table in Table.metadata.sorted_tables}
MIGRATES = "from serve.db.database import Database; Database(url).migrate()"


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_models_and_migrations_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []
    assert tables(database) == TABLES


def test_down_and_up_again(database: Database) -> None:
    for _ in range(2):
        with database.migrating() as alembic:
            command.downgrade(alembic, "base")
        assert tables(database) == set()
        database.migrate()
        assert tables(database) == TABLES


def test_replicas_that_start_at_once_migrate_once(url: str) -> None:
    assert forked(MIGRATES, url) == ""
    database = Database(url)
    assert tables(database) == TABLES
    with database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM audit_head")).scalar() == 1
    database.close()


def test_tables_of_a_newer_version_are_left_alone(database: Database) -> None:
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="of another version of this program") as refused:
        database.migrate()
    assert "\n" not in str(refused.value)


def test_a_time_comes_back_as_the_same_moment_in_utc(database: Database) -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=east)
    with database.writing() as session:
        session.add(ImageRow(**Image(image_id="a" * 64, received_at=moment).model_dump()))
    with database.reading() as session:
        found = session.get_one(ImageRow, "a" * 64).received_at
    assert found == moment and found.tzinfo == UTC
    with pytest.raises(StatementError, match="has no zone"), database.writing() as session:
        session.add(ImageRow(image_id="b" * 64, received_at=datetime(2026, 1, 1)))


def test_a_block_is_all_or_nothing_and_keeps_references(database: Database) -> None:
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(ImageRow(image_id="a" * 64, received_at=datetime.now(UTC)))
        session.flush()
        row = PredictionRow(image_id="b" * 64, model_version=1, runtime="torch", probabilities={}, score=0.0)
        row.bucket, row.drivers, row.positives, row.snapshot, row.at = "routine", [], [], "s", datetime.now(UTC)
        session.add(row)
        session.flush()
    with database.reading() as session:
        assert session.get(ImageRow, "a" * 64) is None


def test_sqlite_is_private_waits_for_writers_and_syncs(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state.db"
    database = Database(f"sqlite:///{file}")
    database.migrate()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    with database.reading() as session:
        pragmas = ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        found = [session.execute(text(f"PRAGMA {name}")).scalar() for name in pragmas]
    assert found == ["wal", 5000, 1, 2]
    database.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://somebody:hush@here/db", "name a database of sqlite or postgresql"),
        ("nothing", "is no URL of a database"),
        ("sqlite://", "name a file"),
        ("postgresql+psycopg2://u:hush@h/d", "name a database of sqlite or postgresql"),
    ],
)
def test_a_url_of_something_else_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        Database(url)
    assert "hush" not in str(refused.value)


def test_where_the_database_is_by_configuration(tmp_path: Path) -> None:
    assert url_of(conf.load([f"lake={tmp_path}"])) == f"sqlite:///{tmp_path}/state/chestai.db"
    assert url_of(conf.load(["lake=s3://b/p", "state.url=postgresql://u@h/d"])) == "postgresql://u@h/d"
    with pytest.raises(UserError, match=r"state\.url is needed with the remote lake s3://b/p"):
        url_of(conf.load(["lake=s3://b/p"]))


def test_a_server_that_is_away_is_no_mistake() -> None:
    database = Database("postgresql://nobody:hush@127.0.0.1:1/none")
    with pytest.raises(OperationalError) as refused:
        database.migrate()
    assert (
        is_unavailable(refused.value)
        and not is_unavailable(ValueError())
        and not is_unavailable(IntegrityError("", {}, Exception()))
    )
    assert "hush" not in database.name
