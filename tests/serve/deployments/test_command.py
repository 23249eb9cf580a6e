"""The endpoint as a command: how it starts, and how it ends."""

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


def test_a_taken_port_is_a_users_mistake() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError, match=f"serve.port={port}"):
            find_port("127.0.0.1", port)
    assert find_port("127.0.0.1", port) == port


def command(*overrides: str) -> subprocess.Popen[str]:
    """`python -m serve` as a shell starts it: the head of its own process group, which Ctrl-C goes to."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "serve", *overrides],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_without_a_champion_it_says_so_and_starts_nothing(tmp_path: Path) -> None:
    process = command(f"lake={tmp_path / 'lake'}", "serve.port=0")
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 2
    assert complaint.startswith("serve: no champion of model chestai in ")
    assert complaint.count("\n") == 1
    assert RAY_STARTED not in (tmp_path / "lake" / "logs" / "serve.log").read_text()


@pytest.mark.slow
def test_ctrl_c_stops_it_and_leaves_no_process(champion: tuple[Config, Bundle]) -> None:
    config, _ = champion
    port = find_port("127.0.0.1", 0)
    process = command("cluster=laptop", f"lake={config.lake}", f"serve.port={port}")
    try:
        said = await_line(process, f"http://127.0.0.1:{port}")
        assert "version 1" in said
        assert httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=60).json()["status"] == "ok"
        assert RAY_STARTED in Path(config.lake, "logs", "serve.log").read_text()
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert time.monotonic() - asked < 30
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    finally:
        process.kill()


def await_line(process: subprocess.Popen[str], text: str) -> str:
    """The first line of output that holds the text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"ended with {process.wait()} before it said {text}")
