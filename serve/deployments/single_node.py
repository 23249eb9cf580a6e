"""The endpoint of one machine with one replica: HTTP in this process, the model on a Ray Serve of its own.

With nothing to balance, Serve's proxy and an ingress replica would only hand every body on, twice.
"""

import math
import os
from collections.abc import Callable

import ray
import uvicorn
from ray import serve

from chestai.config.schema import Config
from serve.api.app import create_app
from serve.deployments.app import deploy_models, with_clear_errors
from serve.deployments.ingress import services
from serve.deployments.preflight import Endpoint, bound, check_start, ray_connection

KEEP_ALIVE_S = 90  # as Ray Serve has it: longer than balancers keep a connection that rests


def needs_one_replica(config: Config) -> bool:
    """Whether one replica on a Ray of our own is all there is to be."""
    elsewhere = ray.is_initialized() or config.cluster.address or os.environ.get("RAY_ADDRESS")
    return config.serve.max_replicas == 1 and not elsewhere


def run(config: Config, say: Callable[[Endpoint], None]) -> None:
    """Start, say what runs, answer until SIGINT or SIGTERM, and finish what is under way.

    Raises:
        UserError: see `serve.deployments.preflight.checked`; Ray is not started then.
        RuntimeError: a replica does not start; says why.
    """
    start = check_start(config)
    os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's own, 15, decoding here would push the model aside
    config = ray_connection(start.config)
    serve.start(proxy_location="Disabled")
    apps = deploy_models(config)
    with with_clear_errors():
        handles = serve.run_many([serve.RunTarget(app, name, route_prefix=None) for name, app in apps.items()])
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(services(config, **dict(zip(apps, handles, strict=True)))),
            access_log=False,
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(config.serve.deadline_seconds),
            **start.tls,
        )
    )
    with bound(start.host, start.port) as listening:
        listening.listen()
        say(start.endpoint())
        server.run(sockets=[listening])
