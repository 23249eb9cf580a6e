"""Before the endpoint starts: checks everything that can be wrong, then connects to Ray."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

from chestai.cli.signals import preserve_sigterm_handler
from chestai.config.ray_options import check_ray_address, find_ray_address, plan_embedded_ray
from chestai.config.schema import Cluster, Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel, Registry
from serve.auth.bootstrap import check_database
from serve.deployments.durable_state import check_durable
from serve.deployments.ray_internals import get_dashboard_address, listen_on_loopback, use_any_agent_port
from serve.deployments.ray_jobs import check_no_password
from serve.deployments.tls import check_exposure, https_options
from serve.monitoring.alerts import check_webhook


class Endpoint(NamedTuple):
    """A running endpoint. url: of its root. model: the version at its start."""

    url: str
    model: RegisteredModel


@dataclass(frozen=True)
class StartPlan:
    """The checked settings of a start. tls: options of the HTTP server, from `https_options`."""

    config: Config
    model: RegisteredModel
    host: str
    port: int
    tls: dict[str, Any]

    def endpoint(self) -> Endpoint:
        """Returns the endpoint that runs after the start."""
        scheme = "https" if self.tls else "http"
        return Endpoint(f"{scheme}://{_url_host(self.host)}:{self.port}", self.model)


def check_start(config: Config) -> StartPlan:
    """Checks everything that a start needs. Does not start Ray.

    Raises:
        UserError: There is no such model; its database, its certificate or the webhook cannot be used; its state would
            be lost with its container; the address cannot be listened on; or others could use the endpoint without
            authentication.
    """
    check_exposure(config)
    tls = https_options(config.serve.tls)
    config = config.model_copy(update={"lake": Lake(config.lake).uri()})  # workers may have another folder
    if find_ray_address(config.cluster) is None:  # otherwise the replicas check their own machines
        check_durable(config)
    check_webhook(config.serve.alert.webhook)
    if config.serve.jobs:
        check_no_password(config)
    registry = Registry(config.tracking, Lake(config.lake))
    model = registry.load(config.serve.model)
    for version in (config.serve.canary.model, config.serve.shadow):
        if version is not None:
            registry.load(str(version))
    if config.auth.required:
        check_database(config)
    host = config.serve.host
    return StartPlan(config, model, host, find_port(host, config.serve.port), tls)


def connect_ray(config: Config) -> Config:
    """Connects to the running Ray, or starts an embedded one, which `ray.init` protects with a token.

    Returns:
        The config; if `serve.jobs` needs a job server, with that of this Ray, or without jobs if it has none. An
        embedded Ray has one on loopback.
    """
    needs_job_server = config.serve.jobs and config.serve.job_server is None
    if not ray.is_initialized():
        _init_ray(config.cluster, needs_job_server)
    if not needs_job_server:
        return config
    address = get_dashboard_address()
    update = {"job_server": f"http://{address}"} if address else {"jobs": False}
    return config.model_copy(update={"serve": config.serve.model_copy(update=update)})


def _init_ray(cluster: Cluster, needs_job_server: bool) -> None:
    check_ray_address(cluster)
    address = find_ray_address(cluster)
    with preserve_sigterm_handler():
        if address:
            ray.init(address=address, log_to_driver=False)
            return
        # A free port, because two endpoints on a machine must not share a job server.
        port = find_port("127.0.0.1", 0) if needs_job_server else None
        with use_any_agent_port(), listen_on_loopback():
            ray.init(**plan_embedded_ray(cluster, dashboard=needs_job_server, dashboard_port=port).arguments)


def find_port(host: str, port: int) -> int:
    """Returns the port if it is free, or a free one for 0.

    Ray Serve would silently share a port with another process.

    Raises:
        UserError: The port is taken, or the address is not of this machine.
    """
    with bind_socket(host, port) as probe:
        return int(probe.getsockname()[1])


def bind_socket(host: str, port: int) -> socket.socket:
    """Binds a socket to an address, without listening yet. Raises as `find_port`."""
    bound = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        reason = error.strerror or error
        raise UserError(f"cannot listen on serve.host={host} serve.port={port}: {reason}") from error
    return bound


def _url_host(host: str) -> str:
    """Returns the host as a client on this machine writes it in a URL."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"
