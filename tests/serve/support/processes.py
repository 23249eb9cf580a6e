"""Runs the same code in several processes at once, and waits for a condition."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0

# One interpreter imports everything and forks, so that the processes run the same line at the same time.
FORKS = """
import os, sys, traceback
import serve.auth.bootstrap, serve.db.database, serve.db.audit
children = []
for number in range(int(sys.argv[3])):
    pid = os.fork()
    if pid == 0:
        try:
            exec(sys.argv[2], {"url": sys.argv[1], "number": number})
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    children.append(pid)
sys.exit(max(os.waitpid(pid, 0)[1] != 0 for pid in children))
"""


def run_forked(code: str, url: str, count: int = 3) -> str:
    """Runs `code` in several processes with the variables `url` and `number`; returns their output. None may fail."""
    command = [sys.executable, "-c", FORKS, url, code, str(count)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def poll(condition: Callable[[], Any], timeout_s: float = PATIENCE_S, interval_s: float = 0.1) -> Any:
    """Returns the condition's value as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(interval_s)
    return value
