"""The endpoint on Ray Serve as a whole: HTTP by its proxies, on every node of a cluster."""

import contextlib
from collections.abc import Iterator

from ray import serve
from ray.serve.config import AutoscalingConfig

from chestai.config.schema import Config
from chestai.model.bundle import FORWARD_ENV
from serve.deployments.ingress import Ingress
from serve.deployments.model import ModelDeployment
from serve.deployments.monitor import MonitorDeployment
from serve.deployments.preflight import Endpoint, check_start, ray_connection

APPLICATION = "chestai"
LOOK_AGAIN_S = 0.05  # for room at a replica; Serve's own 0.5 leave it without work under overload
# Of the model's replicas. Its methods wait on threads of their own: a loop of their own would only be two hops more.
ENVIRONMENT = {**FORWARD_ENV, "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}


def deploy(config: Config) -> Endpoint:
    """Serve the model over HTTP, starting an embedded Ray where none is connected.

    Raises:
        UserError: see `serve.deployments.preflight.checked`; Ray is not started then.
        RuntimeError: a replica does not start; says why.
    """
    start = check_start(config)
    config = ray_connection(start.config)
    serve.start(http_options={"host": start.host, "port": start.port, **start.tls})
    with with_clear_errors():
        serve.run(application(config), name=APPLICATION)
    return start.endpoint()


def stop() -> None:
    """End the endpoint and Serve; Ray stays as it was."""
    serve.shutdown()


@contextlib.contextmanager
def with_clear_errors() -> Iterator[None]:
    """Let a failure to start say what a replica died of: Serve's own error only names its deployment."""
    try:
        yield
    except RuntimeError as error:
        deployments = [one for app in serve.status().applications.values() for one in app.deployments.values()]
        lines = [line.strip() for one in deployments for line in one.message.splitlines() if line.strip()]
        raise RuntimeError(f"the endpoint did not start: {lines[-1] if lines else error}") from error


def application(config: Config) -> serve.Application:
    """The endpoint's deployments, the HTTP side included."""
    limits = config.serve
    ingress = serve.deployment(
        ray_actor_options={"num_cpus": 0.1},
        max_ongoing_requests=2 * limits.places,  # those who are told to come back need room too
        autoscaling_config=AutoscalingConfig(
            min_replicas=1, max_replicas=limits.max_replicas, target_ongoing_requests=2 * limits.max_ongoing_requests
        ),
    )(Ingress)
    return ingress.bind(config, **deploy_models(config))


def deploy_models(config: Config) -> dict[str, serve.Application]:
    """What the HTTP side asks, by the names of `deployments.ingress.services`; canary and shadow where there is one."""
    limits = config.serve
    watch = serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})(MonitorDeployment)
    others = {"canary": limits.canary.model, "shadow": limits.shadow}
    return {
        "model": _model(config, limits.model, "Model", limits.min_replicas),
        "watch": watch.bind(config),
        **{name: _model(config, str(one), name, 1) for name, one in others.items() if one is not None},
    }


def _model(config: Config, which: str, name: str, fewest: int) -> serve.Application:
    """A deployment of one version, or of the champion."""
    limits = config.serve
    replicas = AutoscalingConfig(
        min_replicas=fewest,
        max_replicas=limits.max_replicas,
        target_ongoing_requests=max(1, limits.max_ongoing_requests / 2),
    )
    deployment = serve.deployment(
        name=name,
        ray_actor_options={
            "num_cpus": 1,
            "num_gpus": limits.gpus,
            "runtime_env": {"env_vars": ENVIRONMENT},
        },
        max_ongoing_requests=limits.max_ongoing_requests,
        max_queued_requests=limits.places,  # the HTTP side lets no more in
        autoscaling_config=replicas,
        request_router_config={"max_backoff_s": LOOK_AGAIN_S},
        user_config={"model": which},
    )(ModelDeployment)
    return deployment.bind(config)
