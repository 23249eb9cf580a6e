"""Who suggests trials, and who stops them early."""

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
from tune.space import suggest

METRIC, MODE = "selection", "max"  # what training chooses its best epoch by


def searcher(settings: Tune, store: optuna.storages.BaseStorage, study: str) -> OptunaSearch:
    """Optuna's TPE (Bergstra et al., NeurIPS 2011) over all settings at once; the same seed suggests the same.

    The study is kept in `store`, where `optuna-dashboard` can read it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # multivariate and group, for years now
        startup = max(2, min(10, settings.trials // 4))  # drawn at random before there is anything to learn from
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, n_startup_trials=startup, seed=settings.seed
        )
    return OptunaSearch(
        functools.partial(suggest, space=settings.space),
        metric=METRIC,
        mode=MODE,
        sampler=sampler,
        study_name=study,
        storage=store,
    )


def storage(settings: Tune, lake: Lake) -> optuna.storages.BaseStorage:
    """Where a study is kept: `tune.storage`, `sweeps/optuna.db` of a local lake, or, of a remote one, in memory.

    Raises:
        UserError: the database of `tune.storage` cannot be opened.
    """
    if settings.storage is not None:
        try:
            return optuna.storages.RDBStorage(settings.storage)
        except (ImportError, ValueError, SQLAlchemyError) as error:
            cause = str(error.__cause__ or error).strip().splitlines()[0]
            cause += ": install that database's driver" if isinstance(error, ImportError) else ""
            raise UserError(f"tune.storage={without_password(settings.storage)} cannot be opened: {cause}") from error
    if not lake.local:
        return optuna.storages.InMemoryStorage()
    Path(lake.uri("sweeps")).mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(f"sqlite:///{lake.uri('sweeps', 'optuna.db')}")


def without_password(url: str) -> str:
    """A database's URL as it may be shown."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "..."


def study_of(tuner: tune.Tuner) -> optuna.Study:
    """The study that a tuner's searcher works on: a restored one brings its own, and Ray has no public way to it."""
    internal: Any = tuner._local_tuner
    study: optuna.Study = internal._tune_config.search_alg.searcher._ot_study
    return study


def scheduler(settings: Tune) -> TrialScheduler:
    """ASHA over epochs (Li et al., MLSys 2020), or nobody."""
    if settings.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler("epoch", metric=METRIC, mode=MODE, max_t=settings.epochs)
