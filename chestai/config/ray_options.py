"""How ChestAI starts an embedded Ray: the pipelines and the endpoint share these options."""

import os
import shlex
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from chestai.config.cluster import Cluster
from chestai.errors import UserError

GCS_PORT = "RAY_GCS_SERVER_PORT"  # `ray.init` has no argument for the port; without it, Ray takes any free one
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class EmbeddedRay:
    """How to start an embedded Ray.

    Attributes:
        arguments: Keyword arguments of `ray.init`.
        environment: Variables to set while `ray.init` runs.
    """

    arguments: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)


def find_ray_address(cluster: Cluster) -> str | None:
    """Return the address of the running Ray to connect to, or None to start an embedded one."""
    return cluster.address or os.environ.get("RAY_ADDRESS")


def check_ray_address(cluster: Cluster) -> None:
    """Check within seconds that something listens at the address of a running Ray; Ray itself tries for ten minutes.

    Raises:
        UserError: Nothing does, or the address is that of a job server. The message names the key or variable.
    """
    address = find_ray_address(cluster)
    if address in (None, "", "auto", "local"):
        return
    where = f"cluster.address={address}" if cluster.address else f"RAY_ADDRESS={address}"
    scheme, _, rest = address.rpartition("://")
    if scheme in ("http", "https"):
        raise UserError(
            f"{where} is a server of jobs: put `ray job submit --working-dir . --` before the command, or unset it, "
            "or name the cluster as HOST:6379"
        )
    host, _, port = rest.split("/")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: no Ray answers there ({error}): start it, correct it or unset it") from error


def make_runtime_env(address: str | None) -> dict[str, Any] | None:
    """Return the `runtime_env` that tells workers which of several Rays on a machine is theirs, None if unknown."""
    return {"env_vars": {"RAY_ADDRESS": address}} if address else None


def plan_embedded_ray(
    cluster: Cluster, dashboard: bool = False, dashboard_port: int | None = None, gcs_port: int | None = None
) -> EmbeddedRay:
    """Return the options of an embedded Ray.

    `ray.init` itself protects it with a token unless RAY_AUTH_MODE says otherwise: without one, anybody who reaches its
    ports could run code.

    Args:
        dashboard: Start the dashboard on loopback. It holds the job server (the endpoint's batch jobs need it) and the
            state API (Ray Tune's and Ray Train's actors query it).
        dashboard_port: Port of the dashboard. None tries 8265 and the ports after it.
        gcs_port: Port of Ray's control service. Workers then find this Ray through RAY_ADDRESS.
    """
    arguments: dict[str, Any] = {
        "address": "local",
        "num_cpus": max(cluster.cpus, os.cpu_count() or 1),
        "object_store_memory": int(cluster.object_store_gb * 2**30),
        "include_dashboard": dashboard,
        "dashboard_port": dashboard_port,
        "log_to_driver": False,
    }
    # Ray hands this path to a shell without quotes: with a blank in it, no worker with variables of its own starts.
    python = shlex.quote(sys.executable)
    arguments["runtime_env"] = {} if python == sys.executable else {"py_executable": python}
    if gcs_port is None:
        return EmbeddedRay(arguments)
    arguments["runtime_env"] |= make_runtime_env(f"127.0.0.1:{gcs_port}") or {}
    return EmbeddedRay(arguments, {GCS_PORT: str(gcs_port)})
