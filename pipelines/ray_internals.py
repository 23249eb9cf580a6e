"""Ray's private interfaces that the pipelines use. `tests/pipelines/test_ray_internals.py` fails if Ray moves one."""

from ray._private import worker


def get_log_folder() -> str:
    """Return the folder where each node of the connected Ray keeps its workers' output; "unknown" without a Ray.

    Private because Ray's public API does not name the session folder, and users look for these logs after a crash.
    """
    node = worker._global_node
    return str(node.get_logs_dir_path()) if node is not None else "unknown"
