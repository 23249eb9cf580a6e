"""What comes before an endpoint: everything that can be wrong is checked, then Ray is connected."""

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray._private import parameter
from ray._private.worker import get_dashboard_url

from chestai.cli.signals import preserve_sigterm_handler
from chestai.config.ray_options import embedded_ray, ray_address
from chestai.config.schema import Cluster, Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel, Registry
from serve.auth.bootstrap import create_first_admin
from serve.deployments import ray_jobs
from serve.deployments.tls import check_exposure, options
from serve.monitoring.alerts import check_webhook


class Endpoint(NamedTuple):
    """What runs. url: of its root. model: what it serves now. key: of the first admin, if it was made just now."""

    url: str
    model: RegisteredModel
    key: str | None


@dataclass(frozen=True)
class StartPlan:
    """What was found good. tls: of the HTTP server, see `tls.options`. The rest as `Endpoint` and `Config`."""

    config: Config
    model: RegisteredModel
    key: str | None
    host: str
    port: int
    tls: dict[str, Any]

    def endpoint(self) -> Endpoint:
        """What runs when it has started."""
        scheme = "https" if self.tls else "http"
        return Endpoint(f"{scheme}://{_reachable(self.host)}:{self.port}", self.model, self.key)


def check_start(config: Config) -> StartPlan:
    """Check what a start needs; Ray is not started.

    Raises:
        UserError: there is no such model, its database, its certificate or the webhook cannot be used, the address
            cannot be listened on, or anybody could ask from elsewhere.
    """
    check_exposure(config)
    tls = options(config.serve.tls)
    config = config.model_copy(update={"lake": Lake(config.lake).uri()})  # workers may have another folder
    check_webhook(config.serve.alert.webhook)
    if config.serve.jobs:
        ray_jobs.check(config)
    registry = Registry(config.tracking, Lake(config.lake))
    model = registry.load(config.serve.model)
    for version in (config.serve.canary.model, config.serve.shadow):
        if version is not None:
            registry.load(str(version))
    key = create_first_admin(config) if config.auth.required else None
    host = config.serve.host
    return StartPlan(config, model, key, host, check_port_free(host, config.serve.port), tls)


def ray_connection(config: Config) -> Config:
    """Be connected to Ray, the one that is there or an embedded one, which `ray.init` guards with a token.

    Returns:
        The config with the job server of that Ray where `serve.jobs` needs it; without jobs where it has none. An
        embedded one has it on loopback.
    """
    asked = config.serve.jobs and config.serve.job_server is None
    if not ray.is_initialized():
        _connect(config.cluster, asked)
    if not asked:
        return config
    place = get_dashboard_url()
    told = {"job_server": f"http://{place}"} if place else {"jobs": False}
    return config.model_copy(update={"serve": config.serve.model_copy(update=told)})


def _connect(cluster: Cluster, jobs: bool) -> None:
    """Connect to the running Ray or start an embedded one, with a job server if `jobs`."""
    address = ray_address(cluster)
    with preserve_sigterm_handler():
        if address:
            ray.init(address=address, log_to_driver=False)
            return
        # A free port, because two endpoints on a machine must not share a job server.
        port = check_port_free("127.0.0.1", 0) if jobs else None
        with _any_agent_port():
            ray.init(**embedded_ray(cluster, dashboard=jobs, dashboard_port=port).arguments)


def check_port_free(host: str, port: int) -> int:
    """The port, a free one where it is 0.

    Serve shares a port that another process listens on without a word, so it is tried here.

    Raises:
        UserError: the address is taken or not of this machine.
    """
    with bound(host, port) as probe:
        return int(probe.getsockname()[1])


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet. Raises as `listenable`."""
    found = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        if found is not None:
            found.close()
        reason = error.strerror or error
        raise UserError(f"cannot listen on serve.host={host} serve.port={port}: {reason}") from error
    return found


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


def _reachable(host: str) -> str:
    """The host as a client on this machine writes it in a URL."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"
