"""Sweeps as processes on a small lake of their own, and what they leave in MLflow."""

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
from tests.support.processes import start
from tune.trial import ENDED, trial_runs

EPOCHS = 2
SWEEP_S = 600.0  # the longest that a sweep may take, on a machine that is busy with other things
SMALL = (
    *("+experiment=demo", "cluster=laptop", "network.backbone=resnet10t", "network.size=64", "train.batch_size=16"),
    *(f"tune.epochs={EPOCHS}", "tune.scheduler=none"),
)


def copied(lake: Lake, folder: Path) -> Lake:
    """The tables of a lake, without what was trained on them."""
    left_out = shutil.ignore_patterns("mlflow", "runs", "sweeps", "logs")
    shutil.copytree(lake.root, folder / "lake", ignore=left_out)
    return Lake(str(folder / "lake"))


def sweep(env: dict[str, str], lake: Lake, *more: str) -> subprocess.Popen[str]:
    return start(env, sys.executable, "-m", "tune.sweep", f"lake={lake.root}", *more)


def registry(lake: Lake) -> Registry:
    return Registry(conf.load().tracking, lake)


def parent(lake: Lake) -> Run:
    """The run of the lake's only sweep."""
    client = registry(lake).connect()
    experiment = client.get_experiment_by_name(conf.load().tracking.experiment)
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], "tags.`chestai.stage` = 'sweep'")
    return found


def trials(lake: Lake) -> dict[str, Run]:
    """The runs of the sweep's trials by their trial; a trial has one."""
    runs = trial_runs(registry(lake), parent(lake).info.run_id)
    found = {run.data.tags["chestai.trial"]: run for run in runs}
    assert len(found) == len(runs), "a trial has two runs"
    return found


def studied(lake: Lake) -> list[optuna.trial.FrozenTrial]:
    """The trials of the lake's only study."""
    url = f"sqlite:///{lake.uri('sweeps', 'optuna.db')}"
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).trials


def so_far(lake: Lake, rows: str) -> int:
    """How many rows the study's database has of a kind, while it is being made: Optuna would make it too."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{lake.uri('sweeps', 'optuna.db')}?mode=ro", uri=True)) as found:
            return int(found.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


ENDED_TRIALS, EPOCHS_TOLD = "trials WHERE state != 'RUNNING'", "trial_intermediate_values"


def assert_whole(lake: Lake, count: int) -> None:
    """The sweep is finished: every trial ran to its end in one run, and told each of its epochs once."""
    found = trials(lake)
    assert len(found) == count and parent(lake).info.status == "FINISHED"
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert {run.data.tags[ENDED] for run in found.values()} == {"ran to its end"}
    client, reached = registry(lake).connect(), []
    for run in found.values():
        points = client.get_metric_history(run.info.run_id, "val_macro_auroc")
        assert [point.step for point in points] == list(range(1, EPOCHS + 1)), "an epoch was told twice, or never"
        reached += [point.value for point in points]
    assert parent(lake).data.metrics["best_val_macro_auroc"] == pytest.approx(max(reached))
    assert list(Path(lake.uri("runs")).iterdir()) == [], "checkpoints are left"
