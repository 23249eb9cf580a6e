"""Sweeps when processes die without notice: the driver, a node, the worker of a trial."""

import contextlib
import json
import re
import signal
from pathlib import Path

import psutil
import pytest

from chestai.lake.lake import Lake
from tests.support.processes import (
    MARK,
    autoscaling_cluster,
    marked_processes,
    process_environment,
    wait_for_success,
    wait_until,
)
from tests.support.ray_workers import find_ray_workers, wait_while_running
from tests.tune.sweeps import (
    ENDED_TRIALS,
    REPORTED_EPOCHS,
    SMALL,
    SWEEP_TIMEOUT_S,
    assert_complete,
    count_rows,
    get_sweep_run,
    get_trial_runs,
    list_study_trials,
    start_sweep,
)
from tune.trial import END_REASON

pytestmark = pytest.mark.slow


def find_raylets(mark: str) -> list[psutil.Process]:
    found = []
    for process in marked_processes(mark):
        with contextlib.suppress(psutil.Error):  # it has ended since
            if process.name() == "raylet":
                found.append(process)
    return found


def test_resumes_after_its_driver_was_killed(lake: Lake) -> None:
    """Finished trials are not repeated, and no trial gets a second run."""
    count = 4
    with process_environment() as env:
        lost = start_sweep(env, lake, *SMALL, f"tune.trials={count}", "tune.max_concurrent=1")
        wait_while_running(lost, lambda: count_rows(lake, ENDED_TRIALS) >= 2, "the second trial's end")
        lost.send_signal(signal.SIGKILL)
        lost.wait()
    before, parent_id = get_trial_runs(lake), get_sweep_run(lake).info.run_id
    done = {trial.number: trial.value for trial in list_study_trials(lake) if trial.state.is_finished()}
    assert get_sweep_run(lake).info.status == "RUNNING" and 2 <= len(before) <= count

    with process_environment() as env:
        wait_for_success(start_sweep(env, lake, f"tune.resume={parent_id}"), SWEEP_TIMEOUT_S)
    assert_complete(lake, count)
    for trial, run in before.items():
        assert get_trial_runs(lake)[trial].info.run_id == run.info.run_id
    for number, value in done.items():
        assert list_study_trials(lake)[number].value == value


def test_cluster_grows_for_a_sweep_and_shrinks_after_it(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two trials at a time need two nodes, which the autoscaler starts, and ends when they have been idle."""
    with autoscaling_cluster(tmp_path_factory.mktemp("g"), workers=2, cpus=3, idle_s=20) as env:
        assert len(find_raylets(env[MARK])) == 1, "only the head"
        running = start_sweep(env, lake, *SMALL, "train.workers=2", "tune.trials=3", "tune.max_concurrent=2")
        wait_while_running(running, lambda: len(find_raylets(env[MARK])) == 3, "two more nodes")
        wait_for_success(running, SWEEP_TIMEOUT_S)
        wait_until(lambda: len(find_raylets(env[MARK])) == 1, 90, "giving the nodes back")
    assert_complete(lake, 3)


def test_survives_the_loss_of_a_node(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The trial continues from its last epoch, on the node that the autoscaler starts as a replacement."""
    with autoscaling_cluster(tmp_path_factory.mktemp("g"), workers=2, cpus=3, idle_s=60) as env:
        running = start_sweep(env, lake, *SMALL, "train.workers=2", "tune.trials=3", "tune.max_concurrent=2")
        wait_while_running(running, lambda: count_rows(lake, REPORTED_EPOCHS) > 0, "a trial's first epoch")
        lost = find_ray_workers(env[MARK])
        node = next(iter(lost.values())).parent()
        assert node is not None and node.name() == "raylet"
        node.kill()
        wait_for_success(running, SWEEP_TIMEOUT_S)
    assert_complete(lake, 3)


def test_continues_after_a_trial_lost_its_worker_for_good(lake: Lake) -> None:
    """A trial is retried `train.max_failures` times, here never."""
    overrides = ("tune.trials=2", "tune.epochs=4", "tune.max_concurrent=1", "train.max_failures=0")
    with process_environment() as env:
        running = start_sweep(env, lake, *SMALL, *overrides)
        wait_while_running(running, lambda: count_rows(lake, REPORTED_EPOCHS) > 0, "a trial's first epoch")
        (worker,) = find_ray_workers(env[MARK]).values()
        worker.kill()
        wait_for_success(running, SWEEP_TIMEOUT_S)
    first, second = sorted(get_trial_runs(lake).values(), key=lambda run: run.info.start_time)
    assert first.info.status == "FAILED" and re.match(r"failed after [123] epochs: ", first.data.tags[END_REASON])
    assert second.info.status == "FINISHED" and second.data.tags[END_REASON] == "ran to its end"
    assert [trial.state.name for trial in list_study_trials(lake)] == ["FAIL", "COMPLETE"]
    facts = json.loads(Path(lake.uri("reports", "sweep.json")).read_text())["facts"]
    assert facts["failed"] == 1 and get_sweep_run(lake).info.status == "FINISHED"
    assert list(Path(lake.uri("runs")).iterdir()) == []


def test_stopped_trials_give_their_cores_back(lake: Lake) -> None:
    """There are more trials than cores, and Tune stops each; otherwise the fifth would wait forever."""
    overrides = ("cluster.cpus=4", "tune.epochs=1", "tune.trials=5", "tune.max_concurrent=1", "tune.scheduler=asha")
    with process_environment() as env:
        wait_for_success(start_sweep(env, lake, *SMALL, *overrides), SWEEP_TIMEOUT_S)
    runs = get_trial_runs(lake).values()
    assert len(runs) == 5 and {run.data.tags[END_REASON] for run in runs} == {"ran to its end"}
