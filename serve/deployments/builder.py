"""The application for Ray Serve's own commands, on a cluster that runs: `serve deploy serve/deploy.yaml`.

serve deploy serve.deployments.builder:build lake=s3://bucket/lake tracking.uri=http://mlflow:5000 state.url=postgresql://...
"""

import json
from collections.abc import Mapping
from typing import Any

from ray.serve import Application

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.lake.lake import Lake
from serve.db.database import database_url
from serve.deployments import ray_jobs
from serve.deployments.app import application
from serve.monitoring.alerts import check_webhook


def build(args: dict[str, Any]) -> Application:
    """The endpoint of a configuration.

    Args:
        args: keys of conf/config.yaml, dotted, such as `tracking.uri`, and their values. Where to listen is Ray
            Serve's to know: `http_options` of the file.

    Raises:
        UserError: a key or value is wrong, one is missing without which replicas would not see the same data, or
            anybody could ask.
    """
    config = conf.load(words(args), "serve")
    if Lake(config.lake).local and not config.lake.startswith("/"):
        raise UserError(f"lake={config.lake}: replicas have no common working folder; name a URI or a full path")
    if not config.auth.required:
        raise UserError("auth.required=false is for `python -m serve` on loopback: keep it true on a cluster")
    database_url(config)
    check_webhook(config.serve.alert.webhook)
    if config.serve.jobs:
        ray_jobs.check(config)
    return application(config)


def words(args: Mapping[str, Any]) -> list[str]:
    """Overrides as a command line has them."""
    for key in args:
        if key in ("serve.host", "serve.port"):
            raise UserError(f"{key} is for `python -m serve`: set http_options of the file instead")
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in args.items()]
