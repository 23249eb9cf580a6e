"""A sweep through `ray job submit`, on a cluster with a token: followed, failed, stopped."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chestai.lake.lake import Lake
from tests.support.chain import Chain
from tests.support.processes import MARK, RAY, job_server, marked_processes, submit, until_up, wait_until
from tests.support.training_processes import workers
from tests.tune.sweeps import SMALL, assert_whole, copied, parent, trials
from tune.trial import ENDED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with job_server(tmp_path_factory.mktemp("j")) as env:
        until_up(env)
        yield env


@pytest.fixture
def lake(built: Chain, tmp_path: Path) -> Lake:
    return copied(built.lake, tmp_path)


def states(env: dict[str, str]) -> dict[str, str]:
    """The cluster's jobs and how they are, as `ray job list` tells."""
    told = subprocess.run([RAY, "job", "list"], env=env, capture_output=True, text=True, check=True).stdout
    pairs = zip(re.findall(r"submission_id='(\w+)'", told), re.findall(r"JobStatus\.(\w+)", told), strict=True)
    return dict(pairs)


def test_a_sweep_runs_as_a_job(head: dict[str, str], lake: Lake) -> None:
    done = submit(head, "tune.sweep", f"lake={lake.root}", *SMALL, "tune.trials=2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "of 2 trials done" in done.stdout and "best val macro-AUROC" in done.stdout, "the log is followed"
    assert_whole(lake, 2)


def test_a_job_whose_sweep_fails_says_why(head: dict[str, str], lake: Lake) -> None:
    done = submit(head, "tune.sweep", f"lake={lake.root}", *SMALL, "tune.trials=1", "network.pretrained=/none.pt")
    assert done.returncode != 0
    assert re.search(r"tune.sweep: failed: each of the 1 trials failed before its first epoch.*/none.pt", done.stdout)
    assert parent(lake).info.status == "FAILED"
    assert [run.info.status for run in trials(lake).values()] == ["FAILED"]


def test_a_stopped_job_leaves_nothing_behind(head: dict[str, str], lake: Lake) -> None:
    """Neither a process nor a run that seems to go on."""
    before = set(states(head))
    sent = submit(head, "tune.sweep", f"lake={lake.root}", *SMALL, "tune.trials=8", options=["--no-wait"])
    assert sent.returncode == 0, sent.stderr
    wait_until(lambda: bool(workers(head[MARK])), 180, "a trial")
    (job,) = set(states(head)) - before
    subprocess.run([RAY, "job", "stop", job], env=head, check=True, capture_output=True)
    assert states(head)[job] == "STOPPED"
    names = ("tune.sweep", "RayTrainWorker", "train_trial", "TrainController")

    def left() -> list[list[str]]:
        return [
            one.cmdline()
            for one in marked_processes(head[MARK])
            if any(name in " ".join(one.cmdline()) for name in names)
        ]

    wait_until(lambda: not left(), 60, f"the end of {left()}")
    assert parent(lake).info.status == "KILLED"
    assert trials(lake) and all(run.info.status in ("KILLED", "FINISHED") for run in trials(lake).values())
    assert any(run.data.tags[ENDED] == "the sweep was broken off" for run in trials(lake).values())
    told = json.dumps({trial: run.info.status for trial, run in trials(lake).items()})
    assert "RUNNING" not in told
