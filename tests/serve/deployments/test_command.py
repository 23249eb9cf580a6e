"""`python -m serve`: how it starts, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.model.bundle import Bundle
from serve.deployments.preflight import find_port
from tests.support.paths import ROOT

RAY_STARTED = "Started a local Ray instance"  # in the log of a command


def test_taken_port_is_a_user_error() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError, match=f"serve.port={port}"):
            find_port("127.0.0.1", port)
    assert find_port("127.0.0.1", port) == port


def start_serve(*overrides: str) -> subprocess.Popen[str]:
    """Starts `python -m serve` like a shell: in a process group of its own, to which Ctrl-C goes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "serve", "state.ephemeral=true", *overrides],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_missing_champion_is_one_line_and_starts_no_ray(tmp_path: Path) -> None:
    process = start_serve(f"lake={tmp_path / 'lake'}", "serve.port=0")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.startswith("serve: no champion of model chestai in ")
    assert error.count("\n") == 1
    assert RAY_STARTED not in (tmp_path / "lake" / "logs" / "serve.log").read_text()


@pytest.mark.slow
def test_ctrl_c_stops_the_endpoint_and_leaves_no_process(champion: tuple[Config, Bundle]) -> None:
    config, _ = champion
    port = find_port("127.0.0.1", 0)
    limits = ("auth.requests_per_minute=1", "auth.burst=2", "serve.max_replicas=2")  # on Ray Serve
    process = start_serve("cluster=laptop", f"lake={config.lake}", f"serve.port={port}", *limits)
    try:
        line = wait_for_line(process, f"http://127.0.0.1:{port}")
        assert "version 1" in line
        assert httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=60).json()["status"] == "ok"
        forged = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(3)]
        replies = [httpx.get(f"http://127.0.0.1:{port}/studies", headers=headers) for headers in forged]
        assert [reply.status_code for reply in replies] == [401, 401, 429], "Serve's proxies trust nobody, either"
        assert RAY_STARTED in Path(config.lake, "logs", "serve.log").read_text()
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        interrupted_at = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert time.monotonic() - interrupted_at < 30
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    finally:
        process.kill()


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """Returns the first line of output with the text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"ended with {process.wait()} before it printed {text}")
