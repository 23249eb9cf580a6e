"""Ray's private interfaces that the pipelines use. `tests/pipelines/test_ray_internals.py` fails if Ray moves one."""

import contextlib
import os
from collections.abc import Iterator

from ray._private import ray_constants, worker


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
