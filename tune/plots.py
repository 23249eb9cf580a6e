"""How a sweep went, as Optuna draws it: history, importances, parallel coordinates."""

import warnings
from collections.abc import Callable

import mlflow
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.visualization import matplotlib as draw

DRAWINGS: dict[str, Callable[..., Axes]] = {
    "history": draw.plot_optimization_history,
    "importances": draw.plot_param_importances,
    "parallel_coordinates": draw.plot_parallel_coordinate,
}
ENOUGH = 4  # finished trials that have something to show


def log_plots(study: optuna.Study) -> None:
    """Log the plots of a study to the active run, as plots/<name>.png; none where too few trials ran to their end."""
    finished = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if len(finished) < ENOUGH:
        return
    for name, drawing in DRAWINGS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                axes = drawing(study, target_name="val macro-AUROC")
            except (RuntimeError, ValueError):
                continue  # importances are not defined where all trials did equally well
        figure = axes.get_figure()
        assert isinstance(figure, Figure)
        settings = {key for trial in finished for key in trial.params}
        figure.set_size_inches(max(9.0, 1.6 * len(settings)) if name == "parallel_coordinates" else 9.0, 6)
        mlflow.log_figure(figure, f"plots/{name}.png", save_kwargs={"bbox_inches": "tight"})
        pyplot.close(figure)  # Optuna draws with pyplot, which keeps what it drew
