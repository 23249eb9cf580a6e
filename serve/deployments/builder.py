"""Builds the application for Ray Serve's own command on a running cluster: `serve deploy serve/deploy.yaml`.

Without the file:
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
from serve.deployments.app import build_application
from serve.deployments.preflight import check_no_password
from serve.monitoring.alerts import check_webhook


def build(args: dict[str, Any]) -> Application:
    """Builds the endpoint.

    Args:
        args: Dotted keys of conf/config.yaml, such as `tracking.uri`, and their values. Host and port are in the file's
            `http_options`.

    Raises:
        UserError: A key or value is wrong; a key is missing without which replicas would not share the same data; or
            the endpoint would need no authentication.
    """
    config = conf.load(to_overrides(args), "serve")
    if Lake(config.lake).local and not config.lake.startswith("/"):
        raise UserError(f"lake={config.lake}: replicas have no common working folder; name a URI or a full path")
    if not config.auth.required:
        raise UserError("auth.required=false is for `python -m serve` on loopback: keep it true on a cluster")
    database_url(config)
    check_webhook(config.serve.alert.webhook)
    if config.serve.jobs:
        check_no_password(config)
    return build_application(config)


def to_overrides(args: Mapping[str, Any]) -> list[str]:
    """Converts keys and values to command-line overrides. Raises UserError for host and port."""
    for key in args:
        if key in ("serve.host", "serve.port"):
            raise UserError(f"{key} is for `python -m serve`: set http_options of the file instead")
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in args.items()]
