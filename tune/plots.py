"""Plots of a sweep by Optuna: history, importances, parallel coordinates."""

import warnings
from collections.abc import Callable

import mlflow
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.visualization import matplotlib as draw

PLOTS: dict[str, Callable[..., Axes]] = {
    "history": draw.plot_optimization_history,
    "importances": draw.plot_param_importances,
    "parallel_coordinates": draw.plot_parallel_coordinate,
}
MIN_TRIALS = 4  # finished trials, below which plots show nothing useful


def log_plots(study: optuna.Study) -> None:
    """Log a study's plots to the active run as plots/<name>.png; none if too few trials ran to their end."""
    finished = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if len(finished) < MIN_TRIALS:
        return
    for name, plot in PLOTS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                axes = plot(study, target_name="val macro-AUROC")
            except (RuntimeError, ValueError):
                continue  # importances are undefined if all trials did equally well
        figure = axes.get_figure()
        assert isinstance(figure, Figure)
        settings = {key for trial in finished for key in trial.params}
        figure.set_size_inches(max(9.0, 1.6 * len(settings)) if name == "parallel_coordinates" else 9.0, 6)
        mlflow.log_figure(figure, f"plots/{name}.png", save_kwargs={"bbox_inches": "tight"})
        pyplot.close(figure)  # Optuna draws with pyplot, which keeps figures open
