"""The endpoint on one machine with one replica: HTTP in this process, the model on a Ray Serve of its own.

There is nothing to balance, so Serve's proxy and an ingress replica would only pass each body on twice.
"""

import os
from collections.abc import Callable

import ray
from ray import serve

from chestai.config.schema import Config
from serve.api.app import create_app
from serve.deployments.app import bind_models, explain_start_failure
from serve.deployments.http_server import build_server
from serve.deployments.ingress import connect_services
from serve.deployments.preflight import Endpoint, bind_socket, check_start, connect_ray


def needs_one_replica(config: Config) -> bool:
    """Returns whether the endpoint is a single replica on an embedded Ray."""
    is_remote = ray.is_initialized() or config.cluster.address or os.environ.get("RAY_ADDRESS")
    return config.serve.max_replicas == 1 and not is_remote


def run(config: Config, report: Callable[[Endpoint], None]) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the requests under way.

    Args:
        report: Called once the endpoint accepts requests.

    Raises:
        UserError: As `serve.deployments.preflight.check_start`; Ray is not started then.
        RuntimeError: A replica does not start; the message says why.
    """
    plan = check_start(config)
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default 15: decoding in this process would starve the model
    config = connect_ray(plan.config)
    serve.start(proxy_location="Disabled")
    apps = bind_models(config)
    with explain_start_failure():
        targets = [serve.RunTarget(app, name, route_prefix=None) for name, app in apps.items()]
        handles = dict(zip(apps, serve.run_many(targets), strict=True))
    app = create_app(connect_services(config, **handles))
    server = build_server(app, config.serve.deadline_seconds, plan.tls)
    with bind_socket(plan.host, plan.port) as listener:
        listener.listen()
        report(plan.endpoint())
        server.run(sockets=[listener])
