"""A champion to serve."""

import mlflow
import pytest

from chestai import config as conf
from chestai.bundle import Bundle
from chestai.lake import Lake
from chestai.registry import BUNDLE, Registry
from chestai.sections import Config
from tests.serve.models import make_bundle
from tests.serve.service import fill


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
