"""A sweep whose driver is killed without warning, and gone on with."""

import shutil
import signal
import sys
from pathlib import Path

import optuna
import pytest
from mlflow.entities import Run

from chestai import config as conf
from chestai.lake import Lake
from chestai.registry import Registry
from tests.chain import Chain
from tests.pipelines.processes import environment, finish, start
from tests.pipelines.test_train_faults import wait_for
from tune.trial import ENDED, trial_runs

pytestmark = pytest.mark.slow

TRIALS, EPOCHS = 4, 2
SMALL = (
    *("+experiment=demo", "network.backbone=resnet10t", "network.size=64", "train.batch_size=16"),
    *(f"tune.trials={TRIALS}", f"tune.epochs={EPOCHS}", "tune.max_concurrent=1", "tune.scheduler=none"),
)


def test_a_sweep_goes_on_after_its_driver_was_killed(built: Chain, tmp_path: Path) -> None:
    """Without repeating what was finished, and without a second run for any trial."""
    lake = Lake(str(tmp_path / "lake"))
    shutil.copytree(built.lake.root, lake.root, ignore=shutil.ignore_patterns("mlflow", "runs", "sweeps", "logs"))
    registry = Registry(conf.load().tracking, lake)

    def studies() -> list[optuna.trial.FrozenTrial]:
        database = Path(lake.uri("sweeps", "optuna.db"))
        if not database.exists():
            return []
        names = optuna.get_all_study_names(f"sqlite:///{database}")
        return optuna.load_study(study_name=names[0], storage=f"sqlite:///{database}").trials if names else []

    with environment() as env:
        sweep = start(env, sys.executable, "-m", "tune.sweep", f"lake={lake.root}", *SMALL)
        wait_for(sweep, lambda: sum(trial.state.is_finished() for trial in studies()) >= 2, "the second trial's end")
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
    (parent,) = [run for run in finished_or_not(registry) if run.data.tags["chestai.stage"] == "sweep"]
    parent_id = parent.info.run_id
    before = {run.data.tags["chestai.trial"]: run for run in trial_runs(registry, parent_id)}
    done = {trial.number: trial.value for trial in studies() if trial.state.is_finished()}
    assert parent.info.status == "RUNNING" and 2 <= len(before) <= TRIALS

    with environment() as env:
        output = finish(start(env, sys.executable, "-m", "tune.sweep", f"lake={lake.root}", f"tune.resume={parent_id}"))
    assert f"{TRIALS}" in output
    after = {run.data.tags["chestai.trial"]: run for run in trial_runs(registry, parent_id)}
    assert len(after) == TRIALS == len(trial_runs(registry, parent_id))
    assert {run.data.tags[ENDED] for run in after.values()} == {"ran to its end"}
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    for trial, run in before.items():
        assert after[trial].info.run_id == run.info.run_id
    client = registry.connect()
    for run in after.values():
        points = client.get_metric_history(run.info.run_id, "val_macro_auroc")
        assert [point.step for point in points] == list(range(1, EPOCHS + 1)), "an epoch was trained twice, or never"
    for number, value in done.items():
        assert studies()[number].value == value
    assert client.get_run(parent_id).info.status == "FINISHED"
    assert list(Path(lake.uri("runs")).iterdir()) == []


def finished_or_not(registry: Registry) -> list[Run]:
    client = registry.connect()
    experiment = client.get_experiment_by_name(registry.tracking.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))
