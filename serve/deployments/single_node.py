"""The endpoint on one machine with one replica: HTTP and model in this process, without Ray Serve.

There is nothing to balance, so proxy, ingress and replica would only pass each image on. Files are decoded in processes
of their own, as always. What ends this process ends the endpoint: run it under something that starts it again.
"""

import os
import sys
from collections.abc import Callable

from chestai.config.schema import Config
from serve.api.app import create_app
from serve.deployments.http_server import build_server
from serve.deployments.preflight import Endpoint, bind_socket, check_start
from serve.deployments.start_services import start_services
from serve.inference.batch_jobs import JobRunner
from serve.inference.local_jobs import LocalJobs
from serve.inference.local_scorer import LocalScorer
from serve.inference.model_host import ModelHost
from serve.monitoring.monitor import Monitor


def needs_one_replica(config: Config) -> bool:
    """Returns whether the endpoint is a single replica, and no Ray is running for it."""
    ray = sys.modules.get("ray")  # importing it takes a second
    is_remote = config.cluster.address or os.environ.get("RAY_ADDRESS") or (ray is not None and ray.is_initialized())
    return config.serve.max_replicas == 1 and not is_remote


def run(config: Config, report: Callable[[Endpoint], None]) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the requests under way.

    Args:
        report: Called once the endpoint accepts requests.

    Raises:
        UserError: As `serve.deployments.preflight.check_start`.
    """
    plan = check_start(config)
    config = plan.config
    jobs = LocalJobs(config)
    try:
        services = start_services(
            config,
            scorer=_load(config, config.serve.model),
            monitor=Monitor(config),
            jobs=_choose_job_runner(config, jobs),
            canary=_load_rollout(config, config.serve.canary.model),
            shadow=_load_rollout(config, config.serve.shadow),
        )
        server = build_server(create_app(services), config.serve.deadline_seconds, plan.tls)
        with bind_socket(plan.host, plan.port) as listener:
            listener.listen()
            report(plan.endpoint())
            server.run(sockets=[listener])
    finally:
        jobs.close()


def _choose_job_runner(config: Config, local: LocalJobs) -> JobRunner | None:
    if not config.serve.jobs:
        return None
    if config.serve.job_server is None:
        return local
    from serve.deployments.ray_jobs import RayJobs  # here, for Ray takes a second to import

    return RayJobs(config)


def _load(config: Config, version: str) -> LocalScorer:
    host = ModelHost(config)
    host.reconfigure({"model": version})
    return LocalScorer(host)


def _load_rollout(config: Config, version: int | None) -> LocalScorer | None:
    return None if version is None else _load(config, str(version))
