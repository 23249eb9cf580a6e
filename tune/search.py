"""The searcher that suggests trials, the storage of its study, and the scheduler that stops trials early."""

import functools
import warnings
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chestai.config.schema import Tune
from chestai.errors import UserError
from chestai.lake.lake import Lake
from tune.space import draw_settings

METRIC, MODE = "selection", "max"  # the metric by which training chooses its best epoch


class StudySearch(OptunaSearch):
    """Optuna's search over a study that may know more than Tune: its storage outlives a killed driver.

    A resumed sweep may repeat a trial that the study has finished, and report its epochs again.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports a trial's epoch, unless the study has finished the trial."""
        study: Any = self._ot_study
        known = study.get_trials(deepcopy=False)[self._ot_trials[trial_id].number]
        if not known.state.is_finished():
            super().on_trial_result(trial_id, result)


def build_searcher(settings: Tune, store: optuna.storages.BaseStorage, study: str) -> StudySearch:
    """Build Optuna's TPE (Bergstra et al., NeurIPS 2011) over all settings at once; reproducible by `tune.seed`.

    Args:
        store: Keeps the study, for `optuna-dashboard` too.
        study: The study's name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # multivariate, group
        startup = max(2, min(10, settings.trials // 4))  # trials drawn at random before TPE learns from results
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, n_startup_trials=startup, seed=settings.seed
        )
    return StudySearch(
        functools.partial(draw_settings, space=settings.space),
        metric=METRIC,
        mode=MODE,
        sampler=sampler,
        study_name=study,
        storage=store,
    )


def open_storage(settings: Tune, lake: Lake) -> optuna.storages.BaseStorage:
    """Open the storage of studies: `tune.storage`, else `sweeps/optuna.db` of a local lake, else memory.

    Raises:
        UserError: The database of `tune.storage` cannot be opened.
    """
    if settings.storage is not None:
        try:
            return optuna.storages.RDBStorage(settings.storage)
        except (ImportError, ValueError, SQLAlchemyError) as error:
            cause = str(error.__cause__ or error).strip().splitlines()[0]
            cause += ": install that database's driver" if isinstance(error, ImportError) else ""
            raise UserError(f"tune.storage={hide_password(settings.storage)} cannot be opened: {cause}") from error
    if not lake.local:
        return optuna.storages.InMemoryStorage()
    Path(lake.uri("sweeps")).mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(lake.sqlite_url("sweeps", "optuna.db"))


def hide_password(url: str) -> str:
    """Return a database's URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "..."


def get_study(tuner: tune.Tuner) -> optuna.Study:
    """Return the study of a tuner's searcher. A restored tuner has its own, and Ray has no public access to it."""
    internal: Any = tuner._local_tuner
    study: optuna.Study = internal._tune_config.search_alg.searcher._ot_study
    return study


def build_scheduler(settings: Tune) -> TrialScheduler:
    """Build ASHA over epochs (Li et al., MLSys 2020), or a scheduler that stops nothing."""
    if settings.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler("epoch", metric=METRIC, mode=MODE, max_t=settings.epochs)
