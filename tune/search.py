"""Who suggests trials, and who stops them early."""

import functools
import warnings
from pathlib import Path

import optuna
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from chestai.lake import Lake
from chestai.sections import Tune
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
    """Where a study is kept: `tune.storage`, `sweeps/optuna.db` of a local lake, or, of a remote one, in memory."""
    if settings.storage is not None:
        return optuna.storages.RDBStorage(settings.storage)
    if not lake.local:
        return optuna.storages.InMemoryStorage()
    Path(lake.uri("sweeps")).mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(f"sqlite:///{lake.uri('sweeps', 'optuna.db')}")


def scheduler(settings: Tune) -> TrialScheduler:
    """ASHA over epochs (Li et al., MLSys 2020), or nobody."""
    if settings.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler("epoch", metric=METRIC, mode=MODE, max_t=settings.epochs)
