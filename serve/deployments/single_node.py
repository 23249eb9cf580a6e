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
from serve.api.app import application
from serve.deployments.app import behind, explained
from serve.deployments.ingress import services
from serve.deployments.preflight import Endpoint, bound, checked, connected

KEEP_ALIVE_S = 90  # as Ray Serve has it: longer than balancers keep a connection that rests


def alone(config: Config) -> bool:
    """Whether one replica on a Ray of our own is all there is to be."""
    elsewhere = ray.is_initialized() or config.cluster.address or os.environ.get("RAY_ADDRESS")
    return config.serve.max_replicas == 1 and not elsewhere


def run(config: Config, say: Callable[[Endpoint], None]) -> None:
    """Start, say what runs, answer until SIGINT or SIGTERM, and finish what is under way.

    Raises:
        UserError: see `serve.deployments.preflight.checked`; Ray is not started then.
        RuntimeError: a replica does not start; says why.
    """
    start = checked(config)
    os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's own, 15, decoding here would push the model aside
    config = connected(start.config)
    serve.start(proxy_location="Disabled")
    apps = behind(config)
    with explained():
        handles = serve.run_many([serve.RunTarget(app, name, route_prefix=None) for name, app in apps.items()])
    server = uvicorn.Server(
        uvicorn.Config(
            application(services(config, **dict(zip(apps, handles, strict=True)))),
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
