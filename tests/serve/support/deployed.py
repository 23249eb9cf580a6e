"""Registers models and deploys the endpoint on Ray Serve, for tests over real HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from serve.auth.bootstrap import add_first_admin
from serve.db.database import Database, database_url
from serve.deployments.app import deploy, stop
from tests.serve.support.registry import register_bundles
from tests.serve.support.service import Service, fill_lake
from tests.support.models import add_confidence, make_bundle


def make_champion(folder: Path) -> tuple[Config, Bundle]:
    """Creates a lake with a snapshot and a champion; returns its config and the bundle."""
    limits = ["serve.port=0", "serve.max_upload_mb=1", "serve.follow_seconds=0.5", "auth.requests_per_minute=null"]
    limits.append("state.ephemeral=true")  # tests may run in a container
    config = conf.load(["cluster=laptop", f"lake={folder / 'lake'}", *limits])
    fill_lake(Lake(config.lake), folder)
    registry = register_bundles(config, add_confidence(make_bundle()))
    return config, registry.load("champion").bundle


@contextmanager
def deployed(config: Config) -> Iterator[Service]:
    """Deploys the endpoint for the block."""
    url, model = deploy(config)
    try:
        key = add_first_admin(Database(database_url(config)))
        assert key is not None
        yield Service(url, key, model.bundle, config)
    finally:
        stop()


def find_replica(deployment: str) -> int:
    """Returns the process ID of the only replica of a deployment."""
    (pid,) = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any("ServeReplica" in word and f":{deployment}" in word for word in process.info["cmdline"] or ())
    ]
    return int(pid)
