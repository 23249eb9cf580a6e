"""The endpoint on Ray Serve: its proxies take HTTP requests on every node of the cluster."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ProxyStatus

from chestai.config.schema import Config
from chestai.model.bundle import FORWARD_ENV
from serve.deployments.ingress import Ingress
from serve.deployments.preflight import Endpoint, check_start
from serve.deployments.ray_connection import connect_ray
from serve.deployments.tls import check_proxy_certificate
from serve.inference.model_host import ModelHost
from serve.monitoring.monitor import Monitor

log = logging.getLogger("ray.serve")

APPLICATION = "chestai"
ROUTER_BACKOFF_S = 0.05  # until the router looks again for a free replica; Serve's own 0.5 leaves replicas idle
PROXY_START_S = 60.0
# The model's methods wait on threads of their own, so a separate event loop for them would only add two hand-overs.
REPLICA_ENV = {**FORWARD_ENV, "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}


def deploy(config: Config) -> Endpoint:
    """Serves the model over HTTP. Starts an embedded Ray unless one is connected.

    Raises:
        UserError: As `serve.deployments.preflight.check_start` and `check_proxy_certificate`; Ray is not started then.
        RuntimeError: A proxy or a replica does not start; the message says why.
    """
    plan = check_start(config)
    check_proxy_certificate(config.serve.tls)
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # of Serve's proxies: the application trusts serve.trusted_proxies alone
    config = connect_ray(plan.config)
    _start_proxies({"host": plan.host, "port": plan.port, **plan.tls})
    with explain_start_failure():
        serve.run(build_application(config), name=APPLICATION)
    return plan.endpoint()


def _start_proxies(options: dict[str, Any]) -> None:
    """Starts Serve and its proxies. Raises RuntimeError if they are not ready within `PROXY_START_S`."""
    deadline = time.monotonic() + PROXY_START_S
    try:
        serve.start(http_options=options)
        return
    except RayActorError:  # on a busy machine the controller replaces a slow proxy, and is more patient each time
        log.warning("Serve's proxy takes long to start")
    while not _proxies_are_ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Serve's proxies did not start within {PROXY_START_S:.0f} s")
        time.sleep(0.5)


def _proxies_are_ready() -> bool:
    states = serve.status().proxies.values()
    return bool(states) and all(state == ProxyStatus.HEALTHY for state in states)


def stop() -> None:
    """Stops the endpoint and Serve, but not Ray."""
    serve.shutdown()


@contextlib.contextmanager
def explain_start_failure() -> Iterator[None]:
    """Adds the reason to a RuntimeError of a failed start; Serve's own error only names the deployment."""
    try:
        yield
    except RuntimeError as error:
        applications = serve.status().applications.values()
        messages = [deployment.message for app in applications for deployment in app.deployments.values()]
        lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
        raise RuntimeError(f"the endpoint did not start: {lines[-1] if lines else error}") from error


def build_application(config: Config) -> serve.Application:
    """Builds all deployments of the endpoint, including the HTTP side."""
    limits = config.serve
    ingress = serve.deployment(
        ray_actor_options={"num_cpus": 0.1},
        max_ongoing_requests=2 * limits.admission_slots,  # requests that are rejected need room, too
        autoscaling_config=AutoscalingConfig(
            min_replicas=1, max_replicas=limits.max_replicas, target_ongoing_requests=2 * limits.max_ongoing_requests
        ),
    )(Ingress)
    return ingress.bind(config, **bind_models(config))


def bind_models(config: Config) -> dict[str, serve.Application]:
    """Builds the deployments behind the HTTP side, by the argument names of `deployments.ingress.connect_services`."""
    limits = config.serve
    monitor = serve.deployment(name="Monitor", num_replicas=1, ray_actor_options={"num_cpus": 0})(Monitor)
    rollouts = {"canary": limits.canary.model, "shadow": limits.shadow}
    return {
        "model": _bind_model(config, limits.model, "Model", limits.min_replicas),
        "monitor": monitor.bind(config),
        **{
            name: _bind_model(config, str(version), name, min_replicas=1)
            for name, version in rollouts.items()
            if version is not None
        },
    }


def _bind_model(config: Config, version: str, name: str, min_replicas: int) -> serve.Application:
    """Builds a deployment of one version, or of the champion."""
    limits = config.serve
    replicas = AutoscalingConfig(
        min_replicas=min_replicas,
        max_replicas=limits.max_replicas,
        target_ongoing_requests=max(1, limits.max_ongoing_requests / 2),
    )
    deployment = serve.deployment(
        name=name,
        ray_actor_options={"num_cpus": 1, "num_gpus": limits.gpus, "runtime_env": {"env_vars": REPLICA_ENV}},
        max_ongoing_requests=limits.max_ongoing_requests,
        max_queued_requests=limits.admission_slots,  # the HTTP side admits no more
        autoscaling_config=replicas,
        request_router_config={"max_backoff_s": ROUTER_BACKOFF_S},
        user_config={"model": version},
    )(ModelHost)
    return deployment.bind(config)
