"""The Ray cluster that a stage runs on: an embedded one, or the one it was submitted to."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import ray
from ray.data import DataContext

from chestai.command import own_signals
from chestai.errors import UserError
from chestai.sections import Cluster

T = TypeVar("T")

FEEDING = 2  # logical cores that are left for the tasks that feed training workers


@contextlib.contextmanager
def connected(cluster: Cluster, dashboard: bool = False) -> Iterator[None]:
    """Be connected to Ray; inside a connection that is open already, this does nothing.

    An embedded Ray ends with the command; it has Ray's dashboard, on loopback, where that is asked for. `ray.init`
    guards it with a token by itself, unless RAY_AUTH_MODE says otherwise; its ports would else run anybody's code.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    with own_signals():
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            ray.init(
                address="local",
                num_cpus=max(cluster.cpus, os.cpu_count() or 1),
                object_store_memory=int(cluster.object_store_gb * 2**30),
                include_dashboard=dashboard,
                log_to_driver=False,
            )
    DataContext.get_current().enable_progress_bars = False  # the screen shows one display, ours
    try:
        yield
    finally:
        ray.shutdown()


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


def aside(work: Callable[[], T], look: Callable[[], None], every: float = 0.5) -> T:
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
