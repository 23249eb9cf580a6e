"""The Ray cluster that a stage runs on: an embedded one, or the one it was submitted to."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray
from ray.data import DataContext

from chestai.cli.signals import preserve_sigterm_handler
from chestai.config.schema import Cluster
from chestai.errors import UserError

T = TypeVar("T")

GCS_PORT = "RAY_GCS_SERVER_PORT"  # of an embedded Ray, which takes any free one without
FEEDING = 2  # logical cores that are left for the tasks that feed training workers


@contextlib.contextmanager
def ray_cluster(cluster: Cluster, dashboard: bool = False) -> Iterator[None]:
    """Be connected to Ray; inside a connection that is open already, this does nothing.

    An embedded Ray ends with the command. `ray.init` guards it with a token by itself, unless RAY_AUTH_MODE says
    otherwise; its ports would else run anybody's code.

    Args:
        dashboard: actors will ask Ray's dashboard (an embedded one has it then, on loopback); Ray does not tell them
            which of several Rays on a machine is theirs, so the environment does.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    with preserve_sigterm_handler():
        if address:
            known = os.environ.get("RAY_ADDRESS") if address == "auto" else address
            ray.init(address=address, log_to_driver=False, runtime_env=_addressed(known) if dashboard else None)
        else:
            _embedded(cluster, dashboard)
    DataContext.get_current().enable_progress_bars = False  # the screen shows one display, ours
    try:
        yield
    finally:
        ray.shutdown()


def _embedded(cluster: Cluster, dashboard: bool) -> None:
    settings: dict[str, Any] = {
        "address": "local",
        "num_cpus": max(cluster.cpus, os.cpu_count() or 1),
        "object_store_memory": int(cluster.object_store_gb * 2**30),
        "include_dashboard": dashboard,
        "log_to_driver": False,
    }
    if not dashboard:
        ray.init(**settings)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ[GCS_PORT] = port
    try:
        ray.init(**settings, runtime_env=_addressed(f"127.0.0.1:{port}"))
    finally:
        del os.environ[GCS_PORT]


def _addressed(address: str | None) -> dict[str, Any] | None:
    """An environment for workers that tells Ray's address, where it is known."""
    return {"env_vars": {"RAY_ADDRESS": address}} if address else None


def check_room(cluster: Cluster, workers: int, gpu: bool) -> None:
    """Refuse more training workers than an embedded Ray has room for: they would wait for ever. A cluster may grow.

    Raises:
        UserError: names the key that is too large.
    """
    if cluster.address or os.environ.get("RAY_ADDRESS"):
        return
    has = ray.cluster_resources()
    if gpu and has.get("GPU", 0) < workers:
        raise UserError(f"train.gpu=true with train.workers={workers}: this machine has {has.get('GPU', 0):.0f} GPUs")
    if has["CPU"] < workers + FEEDING:
        raise UserError(
            f"train.workers={workers} and the tasks that feed them need {workers + FEEDING} logical cores: "
            f"set cluster.cpus={workers + FEEDING}, it is {has['CPU']:.0f}"
        )


def run_in_thread(work: Callable[[], T], look: Callable[[], None], every: float = 0.5) -> T:
    """Run `work` in a thread, while this one looks at how it goes, every so many seconds, and stays open to Ctrl-C.

    In the main thread Ray Train would take over the interrupt signal and keep it after the training.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=every)
        look()
    if errors:
        raise errors[0]
    return results[0]


def log_folder() -> str:
    """Where this Ray keeps the output of its workers, on each node."""
    node = ray._private.worker._global_node
    return str(node.get_logs_dir_path()) if node is not None else "unknown"
