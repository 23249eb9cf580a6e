"""Small sweeps as processes on a lake of their own, and what they record in MLflow and Optuna."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from mlflow.entities import Run

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from tests.support.processes import start_process
from tune.trial import END_REASON, list_trial_runs

EPOCHS = 2
ENDED_TRIALS, REPORTED_EPOCHS = "trials WHERE state != 'RUNNING'", "trial_intermediate_values"  # for `count_rows`
SWEEP_TIMEOUT_S = 600.0  # for a sweep on a busy machine
SMALL = (
    *("+experiment=demo", "cluster=laptop", "network.backbone=resnet10t", "network.size=64", "train.batch_size=16"),
    *(f"tune.epochs={EPOCHS}", "tune.scheduler=none"),
)


def copy_lake(lake: Lake, folder: Path) -> Lake:
    """Copy a lake's tables and pixel cache, without trained models."""
    ignored = shutil.ignore_patterns("mlflow", "runs", "sweeps", "logs")
    shutil.copytree(lake.root, folder / "lake", ignore=ignored)
    return Lake(str(folder / "lake"))


def start_sweep(env: dict[str, str], lake: Lake, *more: str) -> subprocess.Popen[str]:
    return start_process(env, sys.executable, "-m", "tune.sweep", f"lake={lake.root}", *more)


def open_registry(lake: Lake) -> Registry:
    return Registry(conf.load().tracking, lake)


def get_sweep_run(lake: Lake) -> Run:
    """Return the MLflow run of the lake's only sweep."""
    client = open_registry(lake).connect()
    experiment = client.get_experiment_by_name(conf.load().tracking.experiment)
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], "tags.`chestai.stage` = 'sweep'")
    return found


def get_trial_runs(lake: Lake) -> dict[str, Run]:
    """Return trial ID -> MLflow run of the lake's only sweep; each trial has one run."""
    runs = list_trial_runs(open_registry(lake), get_sweep_run(lake).info.run_id)
    found = {run.data.tags["chestai.trial"]: run for run in runs}
    assert len(found) == len(runs), "a trial has two runs"
    return found


def list_study_trials(lake: Lake) -> list[optuna.trial.FrozenTrial]:
    """List the trials of the lake's only study."""
    url = f"sqlite:///{lake.uri('sweeps', 'optuna.db')}"
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).trials


def count_rows(lake: Lake, rows: str) -> int:
    """Count rows in the study's database, 0 while it does not exist. Optuna itself would create it."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{lake.uri('sweeps', 'optuna.db')}?mode=ro", uri=True)) as found:
            return int(found.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def assert_complete(lake: Lake, count: int) -> None:
    """Assert that the sweep is finished, and that every trial ran to its end in one run and logged each epoch once."""
    found = get_trial_runs(lake)
    assert len(found) == count and get_sweep_run(lake).info.status == "FINISHED"
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert {run.data.tags[END_REASON] for run in found.values()} == {"ran to its end"}
    client, aurocs = open_registry(lake).connect(), []
    for run in found.values():
        points = client.get_metric_history(run.info.run_id, "val_macro_auroc")
        assert [point.step for point in points] == list(range(1, EPOCHS + 1)), "an epoch was logged twice, or never"
        aurocs += [point.value for point in points]
    assert get_sweep_run(lake).data.metrics["best_val_macro_auroc"] == pytest.approx(max(aurocs))
    assert list(Path(lake.uri("runs")).iterdir()) == [], "checkpoints are left"
