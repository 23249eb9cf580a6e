"""Tests of how a command reports its placement, mistakes and help."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from chestai.cli import main
from chestai.config.hardware import describe_machine, detect_machine

# Code for processes of their own, because `main` takes over signals and file descriptors.
RUN_TWICE = """
import sys
from chestai.cli.main import main
for more in ([], ["cluster=nodes"]):
    try:
        main("pipelines.some", lambda config, screen: screen.say("done"), [sys.argv[1], *more])
    except SystemExit as ended:
        assert ended.code == 0
"""
RUN_WITH_MISTAKE = """
import sys
from chestai import errors
from chestai.cli import main as command
from chestai.config import hardware, load
def run(config, screen):
    raise errors.UserError(f"{config.train.workers} are too many")
load.detect_machine = lambda: hardware.Machine(64, 512, 8)
command.main("pipelines.some", run, sys.argv[1:])
"""


def run_at_terminal(code: str, *words: str) -> list[str]:
    """Run code at a pseudo-terminal and return the lines that it shows."""
    terminal, child_side = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=child_side, stdin=subprocess.DEVNULL)
    os.close(child_side)
    text = b""
    try:
        while piece := os.read(terminal, 4096):
            text += piece
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    return text.decode().splitlines()


def test_terminal_and_log_show_placement_only_if_detected(tmp_path: Path) -> None:
    line = f"cluster: {describe_machine(detect_machine())}"
    assert run_at_terminal(RUN_TWICE, f"lake={tmp_path}") == [line, "done", "done"]
    assert (tmp_path / "logs" / "some.log").read_text() == f"{line}\n"


def test_mistake_stays_one_line_without_terminal(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RUN_WITH_MISTAKE, f"lake={tmp_path}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "pipelines.some: 4 are too many\n")
    assert (tmp_path / "logs" / "some.log").read_text() == "cluster: gpu-large (64 cores, 512 GB, 8 GPUs)\n"


def test_help_shows_placement(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main("pipelines.some", lambda config, screen: None, ["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: python -m pipelines.some [key=value ...]"
    assert lines[2] == f"on this machine, unless named: cluster={describe_machine(detect_machine())}"
    assert any(line.startswith("  batch_size: 32") for line in lines)
