"""Sweeps when processes die without warning: the driver, a node, the workers of a trial."""

import json
import re
import signal
from pathlib import Path

import psutil
import pytest

from chestai.lake.lake import Lake
from tests.support.chain import Chain
from tests.support.processes import MARK, environment, finish, growing, marked_processes, wait_until
from tests.support.training_processes import wait_for, workers
from tests.tune.sweeps import (
    ENDED_TRIALS,
    EPOCHS_TOLD,
    SMALL,
    SWEEP_S,
    assert_whole,
    copied,
    parent,
    so_far,
    studied,
    sweep,
    trials,
)
from tune.trial import ENDED

pytestmark = pytest.mark.slow


@pytest.fixture
def lake(built: Chain, tmp_path: Path) -> Lake:
    return copied(built.lake, tmp_path)


def raylets(mark: str) -> list[psutil.Process]:
    return [one for one in marked_processes(mark) if one.name() == "raylet"]


def test_a_sweep_goes_on_after_its_driver_was_killed(lake: Lake) -> None:
    """Without repeating what was finished, and without a second run for any trial."""
    count = 4
    with environment() as env:
        lost = sweep(env, lake, *SMALL, f"tune.trials={count}", "tune.max_concurrent=1")
        wait_for(lost, lambda: so_far(lake, ENDED_TRIALS) >= 2, "the second trial's end")
        lost.send_signal(signal.SIGKILL)
        lost.wait()
    before, parent_id = trials(lake), parent(lake).info.run_id
    done = {trial.number: trial.value for trial in studied(lake) if trial.state.is_finished()}
    assert parent(lake).info.status == "RUNNING" and 2 <= len(before) <= count

    with environment() as env:
        finish(sweep(env, lake, f"tune.resume={parent_id}"), SWEEP_S)
    assert_whole(lake, count)
    for trial, run in before.items():
        assert trials(lake)[trial].info.run_id == run.info.run_id
    for number, value in done.items():
        assert studied(lake)[number].value == value


def test_a_cluster_grows_for_a_sweep_and_shrinks_after_it(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two trials at a time ask for two nodes, which the autoscaler starts, and ends when they have been idle."""
    with growing(tmp_path_factory.mktemp("g"), workers=2, cpus=3, idle_s=20) as env:
        assert len(raylets(env[MARK])) == 1, "the head alone"
        running = sweep(env, lake, *SMALL, "train.workers=2", "tune.trials=3", "tune.max_concurrent=2")
        wait_for(running, lambda: len(raylets(env[MARK])) == 3, "two more nodes")
        finish(running, SWEEP_S)
        wait_until(lambda: len(raylets(env[MARK])) == 1, 90, "giving the nodes back")
    assert_whole(lake, 3)


def test_a_sweep_outlives_a_node(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its trial goes on from its last epoch, on the node that the autoscaler starts in its place."""
    with growing(tmp_path_factory.mktemp("g"), workers=2, cpus=3, idle_s=60) as env:
        running = sweep(env, lake, *SMALL, "train.workers=2", "tune.trials=3", "tune.max_concurrent=2")
        wait_for(running, lambda: so_far(lake, EPOCHS_TOLD) > 0, "a trial's first epoch")
        lost = workers(env[MARK])
        node = next(iter(lost.values())).parent()
        assert node is not None and node.name() == "raylet"
        node.kill()
        finish(running, SWEEP_S)
    assert_whole(lake, 3)


def test_a_trial_that_loses_its_worker_for_good_fails_and_the_sweep_goes_on(lake: Lake) -> None:
    """It is tried again as often as `train.max_failures` says, here never."""
    words = ("tune.trials=2", "tune.epochs=4", "tune.max_concurrent=1", "train.max_failures=0")
    with environment() as env:
        running = sweep(env, lake, *SMALL, *words)
        wait_for(running, lambda: so_far(lake, EPOCHS_TOLD) > 0, "a trial's first epoch")
        (worker,) = workers(env[MARK]).values()
        worker.kill()
        finish(running, SWEEP_S)
    first, second = sorted(trials(lake).values(), key=lambda run: run.info.start_time)
    assert first.info.status == "FAILED" and re.match(r"failed after [123] epochs: ", first.data.tags[ENDED])
    assert second.info.status == "FINISHED" and second.data.tags[ENDED] == "ran to its end"
    assert [trial.state.name for trial in studied(lake)] == ["FAIL", "COMPLETE"]
    facts = json.loads(Path(lake.uri("reports", "sweep.json")).read_text())["facts"]
    assert facts["failed"] == 1 and parent(lake).info.status == "FINISHED"
    assert list(Path(lake.uri("runs")).iterdir()) == []


def test_trials_that_are_stopped_give_their_cores_back(lake: Lake) -> None:
    """More trials than there are cores, each of them stopped by Tune; without that the fifth would wait for ever."""
    words = ("cluster.cpus=4", "tune.epochs=1", "tune.trials=5", "tune.max_concurrent=1", "tune.scheduler=asha")
    with environment() as env:
        finish(sweep(env, lake, *SMALL, *words), SWEEP_S)
    assert len(trials(lake)) == 5 and {run.data.tags[ENDED] for run in trials(lake).values()} == {"ran to its end"}
