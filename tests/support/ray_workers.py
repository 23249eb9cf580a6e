"""Find Ray's worker processes, and wait for events of a process that must not end before."""

import contextlib
import subprocess
from collections.abc import Callable

import psutil

from tests.support.processes import COMMAND_TIMEOUT_S, marked_processes, wait_until


def find_ray_workers(mark: str, title: str = "RayTrainWorker") -> dict[int, psutil.Process]:
    """Map process IDs to the marked Ray workers whose title, which names what they run, contains `title`."""
    found = {}
    for process in marked_processes(mark):
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if command.startswith("ray::") and title in command:
                found[process.pid] = process
    return found


def wait_while_running(process: subprocess.Popen[str], condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; fail if the process ends before it holds."""

    def check() -> bool:
        assert process.poll() is None or condition(), f"{what} never came: {process.communicate()[0]}"
        return condition()

    wait_until(check, COMMAND_TIMEOUT_S, what)
