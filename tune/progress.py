"""Shows the progress of a running sweep: trials, the best result so far, the time left."""

import optuna
from optuna.trial import TrialState

from chestai.cli.console import Progress


def update_progress(study: optuna.Study, progress: Progress, trials: int, epochs: int) -> None:
    """Show a study's progress in epochs. A trial that ended early counts as if it had trained all its epochs.

    Args:
        trials: Number of trials of the sweep.
        epochs: Maximal number of epochs per trial.
    """
    started = study.get_trials(deepcopy=False)
    ended = sum(trial.state.is_finished() for trial in started)
    running = sum(trial.state == TrialState.RUNNING for trial in started)
    trained = sum(epochs if trial.state.is_finished() else len(trial.intermediate_values) for trial in started)
    values = [value for trial in started for value in trial.intermediate_values.values()]
    best = f", best val macro-AUROC {max(values):.3f}" if values else ""
    progress.update(min(trained, trials * epochs), f"{ended} of {trials} trials done, {running} running{best}")
