"""TODO"""

import contextlib
import subprocess
from collections.abc import Callable

import psutil

from tests.support.processes import COMMAND_TIMEOUT_S, marked_processes, wait_until


def workers(mark: str) -> dict[int, psutil.Process]:
    """The processes that train, by ID."""
    found = {}
    for one in marked_processes(mark):
        with contextlib.suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(one.cmdline()):
                found[one.pid] = one
    return found


def wait_for(process: subprocess.Popen[str], true: Callable[[], bool], what: str) -> None:
    """Wait for something that must come before the process ends."""

    def come() -> bool:
        assert process.poll() is None or true(), f"{what} never came: {process.communicate()[0]}"
        return true()

    wait_until(come, COMMAND_TIMEOUT_S, what)
