"""How a command tells where it runs: a line at a terminal and in the log, none where it would be in the way."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from chestai.cli import main
from chestai.config.hardware import describe_machine, detect_machine

# A process of its own: `main` takes over signals and file descriptors.
TWICE = """
import sys
from chestai.cli.main import main
for more in ([], ["cluster=nodes"]):
    try:
        main("pipelines.some", lambda config, screen: screen.say("done"), [sys.argv[1], *more])
    except SystemExit as left:
        assert left.code == 0
"""
MISTAKEN = """
import sys
from chestai import errors
from chestai.cli import main as command
from chestai.config import hardware, load
def run(config, screen):
    raise errors.UserError(f"{config.train.workers} are too many")
load.detect_machine = lambda: hardware.Machine(64, 512, 8)
command.main("pipelines.some", run, sys.argv[1:])
"""


def at_a_terminal(code: str, *words: str) -> list[str]:
    """The lines that a person reads."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return text.decode().splitlines()


def test_a_person_reads_what_the_machine_decided_and_nothing_of_what_is_named(tmp_path: Path) -> None:
    line = f"cluster: {describe_machine(detect_machine())}"
    assert at_a_terminal(TWICE, f"lake={tmp_path}") == [line, "done", "done"]
    assert (tmp_path / "logs" / "some.log").read_text() == f"{line}\n"


def test_without_a_terminal_a_mistake_stays_one_line_and_the_log_has_the_placement(tmp_path: Path) -> None:
    words = [sys.executable, "-c", MISTAKEN, f"lake={tmp_path}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "pipelines.some: 4 are too many\n")
    assert (tmp_path / "logs" / "some.log").read_text() == "cluster: gpu-large (64 cores, 512 GB, 8 GPUs)\n"


def test_help_tells_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main.main("pipelines.some", lambda config, screen: None, ["--help"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: python -m pipelines.some [key=value ...]"
    assert lines[2] == f"on this machine, unless named: cluster={describe_machine(detect_machine())}"
    assert any(line.startswith("  batch_size: 32") for line in lines)
