"""Start and stop the endpoint on Ray Serve."""

import contextlib
import functools
import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import NamedTuple

import ray
from ray import serve
from ray._private import parameter
from ray._private.worker import get_dashboard_url
from ray.serve.config import AutoscalingConfig

from chestai.bundle import FORWARD_ENV
from chestai.command import own_signals
from chestai.errors import UserError
from chestai.lake import Lake
from chestai.registry import Registered, Registry
from chestai.sections import Cluster, Config
from serve import jobs
from serve.alerts import check_webhook
from serve.auth.first import made
from serve.ingress import Ingress
from serve.model import Model
from serve.tls import check_exposure, options
from serve.watch import Watch

APPLICATION = "chestai"


class Endpoint(NamedTuple):
    """What runs. url: of its root. model: what it serves now. key: of the first admin, if it was made just now."""

    url: str
    model: Registered
    key: str | None


def deploy(config: Config) -> Endpoint:
    """Serve the model over HTTP, starting an embedded Ray where none is connected.

    Raises:
        UserError: there is no such model, its database, its certificate or the webhook cannot be used, the address
            cannot be listened on, or anybody could ask from elsewhere; Ray is not started then.
        RuntimeError: a replica does not start; says why.
    """
    check_exposure(config)
    tls = options(config.serve.tls)
    config = config.model_copy(update={"lake": Lake(config.lake).uri()})  # workers may have another folder
    check_webhook(config.serve.alert.webhook)
    if config.serve.jobs:
        jobs.check(config)
    registry = Registry(config.tracking, Lake(config.lake))
    model = registry.load(config.serve.model)
    for version in (config.serve.canary.model, config.serve.shadow):
        if version is not None:
            registry.load(str(version))
    key = made(config) if config.auth.required else None
    host, port = config.serve.host, listenable(config.serve.host, config.serve.port)
    connect(config.cluster, config.serve.jobs and config.serve.job_server is None)
    serve.start(http_options={"host": host, "port": port, **tls})
    try:
        serve.run(application(_with_job_server(config)), name=APPLICATION)
    except RuntimeError as error:
        raise RuntimeError(f"the endpoint did not start: {_complaint() or error}") from error
    return Endpoint(f"{'https' if tls else 'http'}://{_reachable(host)}:{port}", model, key)


def stop() -> None:
    """End the endpoint and Serve; Ray stays as it was."""
    serve.shutdown()


def connect(cluster: Cluster, jobs: bool = False) -> None:
    """Be connected to Ray, the one that is there or an embedded one, which `ray.init` guards with a token.

    Args:
        jobs: an embedded one has its job server, on loopback.
    """
    if ray.is_initialized():
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    with own_signals():
        if address:
            ray.init(address=address, log_to_driver=False)
            return
        with _any_agent_port():
            ray.init(
                address="local",
                num_cpus=max(cluster.cpus, os.cpu_count() or 1),
                object_store_memory=int(cluster.object_store_gb * 2**30),
                include_dashboard=jobs,
                dashboard_port=listenable("127.0.0.1", 0) if jobs else None,
                log_to_driver=False,
            )


@contextlib.contextmanager
def _any_agent_port() -> Iterator[None]:
    """Let Ray's agent, which starts jobs, listen on any free port.

    `ray.init` has no argument for it, and of two Rays on a machine the second would do without jobs, and not say so.
    """
    names, usual = vars(parameter), parameter.RayParams
    names["RayParams"] = functools.partial(usual, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        names["RayParams"] = usual


def _with_job_server(config: Config) -> Config:
    """The config with the job server of the Ray that is connected; without jobs where it has none."""
    if not config.serve.jobs or config.serve.job_server is not None:
        return config
    place = get_dashboard_url()
    told = {"job_server": f"http://{place}"} if place else {"jobs": False}
    return config.model_copy(update={"serve": config.serve.model_copy(update=told)})


def listenable(host: str, port: int) -> int:
    """The port, a free one where it is 0.

    Serve shares a port that another process listens on without a word, so it is tried here.

    Raises:
        UserError: the address is taken or not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot listen on serve.host={host} serve.port={port}: {reason}") from error


def application(config: Config) -> serve.Application:
    """The deployments of the endpoint."""
    limits = config.serve
    # Room for every request that the model may take or keep waiting, and for those that are told to come back.
    most = 2 * (limits.max_ongoing_requests * limits.max_replicas + limits.max_queued_requests)
    ingress = serve.deployment(
        ray_actor_options={"num_cpus": 0.1},
        max_ongoing_requests=most,
        autoscaling_config=AutoscalingConfig(
            min_replicas=1, max_replicas=limits.max_replicas, target_ongoing_requests=2 * limits.max_ongoing_requests
        ),
    )(Ingress)
    watch = serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})(Watch)
    others = ((limits.canary.model, "canary"), (limits.shadow, "shadow"))
    return ingress.bind(
        config,
        _model(config, limits.model, "Model", limits.min_replicas),
        watch.bind(config),
        *(None if version is None else _model(config, str(version), name, 1) for version, name in others),
    )


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
        ray_actor_options={"num_cpus": 1, "num_gpus": limits.gpus, "runtime_env": {"env_vars": FORWARD_ENV}},
        max_ongoing_requests=limits.max_ongoing_requests,
        max_queued_requests=limits.max_queued_requests,
        autoscaling_config=replicas,
        user_config={"model": which},
    )(Model)
    return deployment.bind(config)


def _complaint() -> str:
    """The last line of what a replica died of: Serve's own error only names its deployment."""
    deployments = serve.status().applications[APPLICATION].deployments.values()
    lines = [line.strip() for one in deployments for line in one.message.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _reachable(host: str) -> str:
    """The host as a client on this machine writes it in a URL."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"
