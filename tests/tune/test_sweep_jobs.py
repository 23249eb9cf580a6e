"""Sweeps through `ray job submit` on a cluster with a token: finished, failed, stopped."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from chestai.lake.lake import Lake
from tests.support.processes import MARK, RAY, job_server, marked_processes, submit_job, wait_for_job_server, wait_until
from tests.support.ray_workers import find_ray_workers
from tests.tune.sweeps import SMALL, assert_complete, get_sweep_run, get_trial_runs
from tune.trial import END_REASON

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with job_server(tmp_path_factory.mktemp("j")) as env:
        wait_for_job_server(env)
        yield env


def list_job_states(env: dict[str, str]) -> dict[str, str]:
    """Return submission ID -> state of the cluster's jobs, from `ray job list`."""
    output = subprocess.run([RAY, "job", "list"], env=env, capture_output=True, text=True, check=True).stdout
    pairs = zip(re.findall(r"submission_id='(\w+)'", output), re.findall(r"JobStatus\.(\w+)", output), strict=True)
    return dict(pairs)


def test_runs_as_a_job(head: dict[str, str], lake: Lake) -> None:
    done = submit_job(head, "tune.sweep", f"lake={lake.root}", *SMALL, "tune.trials=2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "of 2 trials done" in done.stdout and "best val macro-AUROC" in done.stdout, "the log is followed"
    assert_complete(lake, 2)


def test_failed_job_says_why(head: dict[str, str], lake: Lake) -> None:
    done = submit_job(head, "tune.sweep", f"lake={lake.root}", *SMALL, "tune.trials=1", "network.pretrained=/none.pt")
    assert done.returncode != 0
    assert re.search(r"tune.sweep: failed: each of the 1 trials failed before its first epoch.*/none.pt", done.stdout)
    assert get_sweep_run(lake).info.status == "FAILED"
    assert [run.info.status for run in get_trial_runs(lake).values()] == ["FAILED"]


def test_stopped_job_leaves_nothing_behind(head: dict[str, str], lake: Lake) -> None:
    """Neither a process nor an MLflow run that looks active."""
    before = set(list_job_states(head))
    sent = submit_job(head, "tune.sweep", f"lake={lake.root}", *SMALL, "tune.trials=8", options=["--no-wait"])
    assert sent.returncode == 0, sent.stderr
    wait_until(lambda: bool(find_ray_workers(head[MARK])), 180, "a trial")
    (job,) = set(list_job_states(head)) - before
    subprocess.run([RAY, "job", "stop", job], env=head, check=True, capture_output=True)
    assert list_job_states(head)[job] == "STOPPED"
    names = ("tune.sweep", "RayTrainWorker", "train_trial", "TrainController")

    def list_remaining() -> list[list[str]]:
        commands = [process.cmdline() for process in marked_processes(head[MARK])]
        return [command for command in commands if any(name in " ".join(command) for name in names)]

    wait_until(lambda: not list_remaining(), 60, f"the end of {list_remaining()}")
    assert get_sweep_run(lake).info.status == "KILLED"
    runs = get_trial_runs(lake)
    statuses = {trial: run.info.status for trial, run in runs.items()}
    assert runs and set(statuses.values()) <= {"KILLED", "FINISHED"}, statuses
    assert any(run.data.tags[END_REASON] == "the sweep was broken off" for run in runs.values())
