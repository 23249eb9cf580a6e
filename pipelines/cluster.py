"""The Ray cluster that a stage runs on: an embedded one, or the one it was submitted to."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import ray
from ray._private import ray_constants, worker  # `tests/pipelines/test_ray_internals.py` fails if Ray moves them
from ray.data import DataContext

from chestai.cli.signals import preserve_sigterm_handler
from chestai.config.ray_options import check_ray_address, find_ray_address, make_runtime_env, plan_embedded_ray
from chestai.config.schema import Cluster
from chestai.errors import UserError

T = TypeVar("T")

RESERVED_CORES = 2  # logical cores left for the tasks that load images for training workers


@contextlib.contextmanager
def ray_cluster(cluster: Cluster, dashboard: bool = False) -> Iterator[None]:
    """Connect to Ray for the block. Does nothing if a connection is already open.

    An embedded Ray ends with the block.

    Raises:
        UserError: No Ray answers at the given address.

    Args:
        dashboard: Actors will query Ray's dashboard. An embedded Ray then starts one on loopback, and workers get
            RAY_ADDRESS, because Ray does not tell actors which of several Rays on a machine is theirs.
    """
    if ray.is_initialized():
        yield
        return
    check_ray_address(cluster)
    _use_utf8()
    address = find_ray_address(cluster)
    with preserve_sigterm_handler():
        if address:
            worker_address = os.environ.get("RAY_ADDRESS") if address == "auto" else address
            runtime_env = make_runtime_env(worker_address) if dashboard else None
            ray.init(address=address, log_to_driver=False, runtime_env=runtime_env)
        else:
            options = plan_embedded_ray(cluster, dashboard, gcs_port=_find_free_port() if dashboard else None)
            with _set_environment(options.environment), listen_on_loopback():
                ray.init(**options.arguments)
    DataContext.get_current().enable_progress_bars = False  # the screen shows our progress display only
    try:
        yield
    finally:
        ray.shutdown()


def _use_utf8() -> None:
    """Let the Java of driver and workers read file names as Python does, which takes LC_ALL=C for UTF-8."""
    if os.environ.get("LC_ALL") in ("C", "POSIX"):
        os.environ["LC_ALL"] = "C.UTF-8"


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def check_capacity(cluster: Cluster, workers: int, gpu: bool) -> None:
    """Check that an embedded Ray has room for the training workers; without it they would wait forever.

    A running cluster is not checked, because it may grow.

    Raises:
        UserError: The workers do not fit; the message names the key to change.
    """
    if find_ray_address(cluster):
        return
    resources = ray.cluster_resources()
    gpus, cores = resources.get("GPU", 0), resources["CPU"]
    if gpu and gpus < workers:
        raise UserError(f"train.gpu=true with train.workers={workers}: this machine has {gpus:.0f} GPUs")
    if cores < workers + RESERVED_CORES:
        raise UserError(
            f"train.workers={workers} and the tasks that load their images need {workers + RESERVED_CORES} logical "
            f"cores: set cluster.cpus={workers + RESERVED_CORES}, it is {cores:.0f}"
        )


def run_in_thread(work: Callable[[], T], poll: Callable[[], None], every: float = 0.5) -> T:
    """Run `work` in a thread and return its result, calling `poll` every `every` seconds meanwhile.

    The main thread stays open to Ctrl-C: run there, Ray Train would take over the interrupt signal and keep it.
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
        poll()
    if errors:
        raise errors[0]
    return results[0]


def get_log_folder() -> str:
    """Return the folder where each node of the connected Ray keeps its workers' output; "unknown" without a Ray.

    Private because Ray's public API does not name the session folder, and users look for these logs after a crash.
    """
    node = worker._global_node
    return str(node.get_logs_dir_path()) if node is not None else "unknown"


@contextlib.contextmanager
def listen_on_loopback() -> Iterator[None]:
    """Let all processes of a Ray that `ray.init` starts within the block listen on loopback alone.

    Otherwise other machines reach its ports, of which those with metrics ask for no token. Private because Ray means
    the setting for other operating systems, and reads the variable when it is imported.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    former, former_variable = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    vars(ray_constants)["ENABLE_RAY_CLUSTER"], os.environ[name] = False, "0"  # here, and in the processes it starts
    try:
        yield
    finally:
        vars(ray_constants)["ENABLE_RAY_CLUSTER"] = former
        del os.environ[name]
        os.environ.update({} if former_variable is None else {name: former_variable})
