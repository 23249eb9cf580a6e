"""The progress of a running sweep and its plots afterwards."""

import functools
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest

from chestai.cli.console import Screen
from chestai.config import load as conf
from tune.plots import PLOTS, log_plots
from tune.progress import update_progress
from tune.space import draw_settings


def make_study(finished: int, level: float = 0.1) -> optuna.Study:
    """A study of the wide space whose results depend on the learning rate, with one failed trial."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    space = conf.load(["tune=wide"]).tune.space
    for number in range(finished + 1):
        trial = study.ask()
        draw_settings(trial, space)
        if number == finished:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, 0.8 - level * abs(float(np.log10(trial.params["train.lr"])) - 3))
    return study


@pytest.mark.parametrize(("finished", "level", "drawn"), [(12, 0.1, set(PLOTS)), (12, 0.0, None), (3, 0.1, set())])
def test_logs_plots_when_there_is_something_to_show(
    tmp_path: Path, finished: int, level: float, drawn: set[str] | None
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("plots", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("plots")
    with mlflow.start_run():
        log_plots(make_study(finished, level))
    found = {path.stem for path in (tmp_path / "artifacts").rglob("*.png")}
    if drawn is None:  # all trials did equally well, so no setting is more important
        assert {"history", "parallel_coordinates"} <= found
    else:
        assert found == drawn


def test_progress_counts_epochs_and_ended_trials_in_full(screen: Screen) -> None:
    study = optuna.create_study(direction="maximize")
    with screen.progress("sweep", 3 * 4, "epochs") as progress:
        update = functools.partial(update_progress, study, progress, trials=3, epochs=4)
        update()
        assert (progress.done, progress.note) == (0, "0 of 3 trials done, 0 running")
        first, second = study.ask(), study.ask()
        first.report(0.6, 1)
        first.report(0.7, 2)
        second.report(0.5, 1)
        update()
        assert (progress.done, progress.note) == (3, "0 of 3 trials done, 2 running, best val macro-AUROC 0.700")
        study.tell(second, 0.5)
        update()
        assert (progress.done, progress.note) == (6, "1 of 3 trials done, 1 running, best val macro-AUROC 0.700")
        study.tell(first, state=optuna.trial.TrialState.FAIL)
        update()
        assert progress.done == 8
