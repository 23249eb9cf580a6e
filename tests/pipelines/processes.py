"""Processes that tests start and may kill, and nodes of a Ray cluster made of such processes."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

from tests.conftest import ROOT
from tests.pipelines.test_commands import MARK, family, wait_until
from tests.pipelines.test_jobs import RAY, free_port

FINISH_S = 240.0  # the longest that a command may take, on a machine that is busy with other things


@contextlib.contextmanager
def environment(**more: str) -> Iterator[dict[str, str]]:
    """An environment for processes; at the end, whatever still lives of those started in it is killed."""
    env = {**os.environ, **more, MARK: uuid.uuid4().hex}

    def gone() -> bool:
        living = family(env[MARK])
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()
        return not living

    try:
        yield env
    finally:
        wait_until(gone, 30, "killing")


def start(env: dict[str, str], *words: str, out: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process, which must succeed, and return what it printed."""
    output, _ = process.communicate(timeout=FINISH_S)
    assert process.returncode == 0, output
    return output


@contextlib.contextmanager
def three_nodes(folder: Path) -> Iterator[dict[str, str]]:
    """Three nodes of one cluster, guarded by a token, on this machine; gives the environment to reach it.

    The head node has one core, each of the others two.
    """
    (folder / "token").write_text(os.urandom(32).hex())
    port = free_port()
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder / 'r'}", "--num-cpus=1")
    other = (f"--address=127.0.0.1:{port}", "--num-cpus=2")
    with environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(folder / "token")) as env:
        for number, words in enumerate((head, other, other)):
            log = folder / f"{number}.log"
            common = ("--block", "--object-store-memory=200000000", "--disable-usage-stats")
            with log.open("w") as out:
                start(env, RAY, "start", *words, *common, out=out)
            wait_until(lambda log=log: "Ray runtime started" in log.read_text(), 90, "starting a node")
        yield {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}
