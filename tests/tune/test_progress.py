"""What is seen of a sweep: progress while it runs, plots afterwards."""

from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest

from chestai.cli.console import Screen
from chestai.config import load as conf
from tune.plots import DRAWINGS, log_plots
from tune.progress import trial_progress
from tune.space import suggest


def study(finished: int, level: float = 0.1) -> optuna.Study:
    """Trials of the wide space whose outcome hangs on the learning rate, and one that was stopped."""
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    space = conf.load(["tune=wide"]).tune.space
    for number in range(finished + 1):
        trial = made.ask()
        suggest(trial, space)
        if number == finished:
            made.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            made.tell(trial, 0.8 - level * abs(float(np.log10(trial.params["train.lr"])) - 3))
    return made


@pytest.mark.parametrize(("finished", "level", "drawn"), [(12, 0.1, set(DRAWINGS)), (12, 0.0, None), (3, 0.1, set())])
def test_plots_are_logged_where_there_is_something_to_show(
    tmp_path: Path, finished: int, level: float, drawn: set[str] | None
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("plots", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("plots")
    with mlflow.start_run():
        log_plots(study(finished, level))
    found = {path.stem for path in (tmp_path / "artifacts").rglob("*.png")}
    if drawn is None:  # all trials did equally well, so that nothing was more important than another
        assert {"history", "parallel_coordinates"} <= found
    else:
        assert found == drawn


def test_progress_counts_epochs_and_what_ended_trials_give_back(screen: Screen) -> None:
    made = optuna.create_study(direction="maximize")
    with screen.progress("sweep", 3 * 4, "epochs") as progress:
        look = trial_progress(lambda: made, progress, trials=3, epochs=4)
        look()
        assert (progress.done, progress.note) == (0, "0 of 3 trials done, 0 running")
        first, second = made.ask(), made.ask()
        first.report(0.6, 1)
        first.report(0.7, 2)
        second.report(0.5, 1)
        look()
        assert (progress.done, progress.note) == (3, "0 of 3 trials done, 2 running, best val macro-AUROC 0.700")
        made.tell(second, 0.5)
        look()
        assert (progress.done, progress.note) == (6, "1 of 3 trials done, 1 running, best val macro-AUROC 0.700")
        made.tell(first, state=optuna.trial.TrialState.FAIL)
        look()
        assert progress.done == 8
