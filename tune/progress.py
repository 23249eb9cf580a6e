"""What a person sees of a running sweep: trials, the best so far, the time left."""

from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from chestai.cli.console import Progress


def trial_progress(
    study: Callable[[], optuna.Study], progress: Progress, trials: int, epochs: int
) -> Callable[[], None]:
    """A look at a study that updates the progress, in epochs; a trial that ended early gives back the rest of its own.

    Args:
        study: gives the study as it is now. trials: how many the sweep has. epochs: at most, of each.
    """

    def look() -> None:
        seen = study().get_trials(deepcopy=False)
        ended = sum(trial.state.is_finished() for trial in seen)
        running = sum(trial.state == TrialState.RUNNING for trial in seen)
        trained = sum(epochs if trial.state.is_finished() else len(trial.intermediate_values) for trial in seen)
        reached = [value for trial in seen for value in trial.intermediate_values.values()]
        best = f", best val macro-AUROC {max(reached):.3f}" if reached else ""
        progress.update(min(trained, trials * epochs), f"{ended} of {trials} trials done, {running} running{best}")

    return look
