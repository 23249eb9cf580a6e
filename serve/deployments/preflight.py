"""Before the endpoint starts: checks everything that can be wrong. Needs no Ray."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from chestai.config.ray_options import find_ray_address
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel, Registry
from serve.auth.bootstrap import check_database
from serve.deployments.durable_state import check_durable
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


def check_no_password(config: Config) -> None:
    """Raises UserError if a job's command line, which Ray's dashboard shows, would hold a password."""
    uri = config.tracking.uri
    if uri is not None and urlsplit(uri).password:
        raise UserError(
            "tracking.uri holds a password, which the jobs of POST /batch_infer would show: "
            "put it into MLFLOW_TRACKING_PASSWORD or PGPASSWORD, or set serve.jobs=false"
        )


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
