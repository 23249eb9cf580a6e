"""A stage through `ray job submit`, on a cluster that `ray start --head` made, with token authentication."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chestai.lake import Lake
from tests.chain import SMALL, Chain
from tests.conftest import ROOT

RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head node with a token of its own; gives the environment to reach it."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text(os.urandom(32).hex())
    dashboard, gcs = free_port(), free_port()
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    cluster = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}"),
            *("--num-cpus=8", "--object-store-memory=300000000", "--dashboard-agent-listen-port=0"),
            *("--include-dashboard=true", "--disable-usage-stats", f"--temp-dir={folder.parent / 'r'}"),
        ],
        env={key: value for key, value in env.items() if key != "RAY_ADDRESS"},
        stdout=(folder / "head.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        yield env
    finally:
        cluster.terminate()
        cluster.wait(timeout=60)


def submit(env: dict[str, str], *words: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RAY, "job", "submit", "--working-dir", ".", "--", sys.executable, "-m", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_etl_runs_as_a_job(built: Chain, head: dict[str, str], tmp_path: Path) -> None:
    _until_up(head)
    lake = tmp_path / "lake"
    done = submit(head, "pipelines.etl", *SMALL, f"lake={lake}", f"phantom.root={built.config.phantom.root}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert built.lake.snapshot().snapshot_id in done.stdout, "the log is followed"
    assert Lake(str(lake)).snapshot().snapshot_id == built.lake.snapshot().snapshot_id


def test_a_mistake_fails_the_job_in_one_line(head: dict[str, str], tmp_path: Path) -> None:
    _until_up(head)
    done = submit(head, "pipelines.train", f"lake={tmp_path}/none")
    assert done.returncode != 0
    assert "holds no build: run `python -m pipelines.etl" in done.stdout


def test_without_the_token_nothing_is_submitted(head: dict[str, str], tmp_path: Path) -> None:
    _until_up(head)
    (tmp_path / "wrong").write_text("0" * 64)
    stranger = {**head, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}
    done = submit(stranger, "pipelines.train", f"lake={tmp_path}/none", timeout=60)
    assert done.returncode != 0 and "holds no build" not in done.stdout


def _until_up(head: dict[str, str]) -> None:
    """Wait for the job server."""
    for _ in range(60):
        answer = subprocess.run([RAY, "job", "list"], env=head, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return
    pytest.fail(answer.stdout + answer.stderr)
