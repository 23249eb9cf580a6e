"""Start processes that tests may kill, and Ray clusters made of such processes."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil

from tests.support.paths import ROOT

RAY = str(Path(sys.executable).parent / "ray")

COMMAND_TIMEOUT_S = 240.0  # for a command on a machine that is busy with other things
MARK = "CHESTAI_TEST_MARK"  # a variable that every process of a command inherits, even when re-parented


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process_environment(**more: str) -> Iterator[dict[str, str]]:
    """Yield an environment for processes; at the end, kill the processes started in it that still live."""
    env = {**os.environ, **more, MARK: uuid.uuid4().hex}

    def kill_all() -> bool:
        living = marked_processes(env[MARK])
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return not living

    try:
        yield env
    finally:
        wait_until(kill_all, 30, "killing")


def start_process(env: dict[str, str], *words: str, out: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for_success(process: subprocess.Popen[str], seconds: float = COMMAND_TIMEOUT_S) -> str:
    """Wait for a process, which must succeed, and return what it printed."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return output


def start_ray_node(env: dict[str, str], log: Path, *words: str) -> None:
    """Start a Ray node and wait until it is up."""
    with log.open("w") as out:
        start_process(
            env, RAY, "start", *words, "--block", "--object-store-memory=200000000", "--disable-usage-stats", out=out
        )
    wait_until(lambda: "Ray runtime started" in log.read_text(), 90, "starting a node")


@contextlib.contextmanager
def token_environment(folder: Path, **more: str) -> Iterator[dict[str, str]]:
    """Yield an environment for a cluster with a token of its own."""
    (folder / "token").write_text(os.urandom(32).hex())
    with process_environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(folder / "token"), **more) as env:
        yield env


@contextlib.contextmanager
def three_node_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster of three nodes on this machine, protected by a token; yield the environment to reach it.

    The head node has one core, each of the others two.
    """
    port = free_port()
    worker = (f"--address=127.0.0.1:{port}", "--num-cpus=2")
    with token_environment(folder) as env:
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder / 'r'}", "--num-cpus=1")
        for number, words in enumerate((head, worker, worker)):
            start_ray_node(env, folder / f"{number}.log", *words)
        yield {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}


@contextlib.contextmanager
def autoscaling_cluster(folder: Path, workers: int, cpus: int, idle_s: float) -> Iterator[dict[str, str]]:
    """Start a head without cores whose autoscaler runs nodes as processes; yield the environment to reach it.

    Args:
        workers: Most nodes besides the head.
        cpus: Cores of each.
        idle_s: Idle time after which the autoscaler ends a node.
    """
    port, head_id = free_port(), f"{0:056x}"
    provider = {
        # by class, because Ray's wheels lack the defaults of the provider's short name
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "head_node_id": head_id,
        "gcs_address": f"127.0.0.1:{port}",
    }
    node_type = {"resources": {"CPU": cpus, "object_store_memory": 200_000_000}, "node_config": {}, "min_workers": 0}
    stages = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    lists = (*(f"{stage}_commands" for stage in stages), "cluster_synced_files", "rsync_exclude", "rsync_filter")
    config = {
        **{name: [] for name in lists},  # Ray requires all of them
        "cluster_name": "growing",
        "max_workers": workers,
        "upscaling_speed": 20.0,
        "idle_timeout_minutes": idle_s / 60,
        "provider": provider,
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {**node_type, "max_workers": workers},
        },
    }
    (folder / "cluster.json").write_text(json.dumps(config))
    scaling = {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    identity = {"RAY_CLOUD_INSTANCE_ID": head_id, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head_id}
    with token_environment(folder) as env:
        words = ("--head", f"--port={port}", "--num-cpus=0", f"--temp-dir={folder / 'r'}")
        ports = (f"--dashboard-port={free_port()}", "--dashboard-agent-listen-port=0")
        scaled = f"--autoscaling-config={folder / 'cluster.json'}"
        start_ray_node({**env, **scaling, **identity}, folder / "head.log", *words, *ports, scaled)
        yield {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}


@contextlib.contextmanager
def job_server(folder: Path) -> Iterator[dict[str, str]]:
    """Start a head of eight cores that takes jobs; yield the environment to submit them, with the token."""
    gcs, dashboard = free_port(), free_port()
    with token_environment(folder) as env:
        ports = (f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0")
        more = ("--num-cpus=8", "--include-dashboard=true", f"--temp-dir={folder / 'r'}")
        start_ray_node(env, folder / "head.log", "--head", *ports, *more)
        yield {**env, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}


def submit_job(
    env: dict[str, str], *words: str, options: Sequence[str] = (), timeout: int = 300
) -> subprocess.CompletedProcess[str]:
    """Run `ray job submit` of a command from the working tree, as the README does."""
    return subprocess.run(
        [RAY, "job", "submit", "--working-dir", ".", *options, "--", sys.executable, "-m", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_for_job_server(env: dict[str, str]) -> None:
    """Wait until the job server answers."""
    for _ in range(60):
        answer = subprocess.run([RAY, "job", "list"], env=env, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return
    raise AssertionError(answer.stdout + answer.stderr)


def marked_processes(mark: str) -> list[psutil.Process]:
    """Return all living processes that bear a mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took over {seconds} s"
        time.sleep(0.2)
