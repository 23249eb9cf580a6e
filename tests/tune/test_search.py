"""Who suggests: the same seed and the same results give the same sweep, from the first trial to the last."""

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from chestai.config import load as conf
from chestai.config.schema import Tune
from chestai.lake.lake import Lake
from tune.search import METRIC, searcher, storage

TRIALS = 24


def settings(seed: int, space: str = "wide") -> Tune:
    return conf.load([f"tune={space}", f"tune.seed={seed}", f"tune.trials={TRIALS}"]).tune


def near(lr: float) -> Callable[[dict[str, Any]], float]:
    """A training that does best at a learning rate."""
    return lambda drawn: 0.9 - 0.1 * abs(math.log10(drawn["train.lr"] / lr))


def swept(chosen: Tune, outcome: Callable[[dict[str, Any]], float]) -> list[dict[str, Any]]:
    """What is suggested to trials that run one after another and report each epoch."""
    search = searcher(chosen, optuna.storages.InMemoryStorage(), "study")
    drawn = []
    for number in range(TRIALS):
        trial = str(number)
        drawn.append(search.suggest(trial) or {})
        value = outcome(drawn[-1])
        for epoch in (1, 2):
            search.on_trial_result(trial, {METRIC: value * epoch / 2, "training_iteration": epoch})
        search.on_trial_complete(trial, {METRIC: value, "training_iteration": 2})
    return drawn


def test_the_same_seed_suggests_the_same_sweep() -> None:
    first = swept(settings(3), near(1e-3))
    assert first == swept(settings(3), near(1e-3))
    assert first != swept(settings(4), near(1e-3))
    assert len({drawn["train.lr"] for drawn in first}) == TRIALS


def test_what_is_suggested_later_follows_from_what_was_reached() -> None:
    """After the first trials, drawn at random, a sweep goes where it was good."""
    low, high = (swept(settings(3, "basic"), near(lr)) for lr in (2e-4, 4e-3))
    assert low[:6] == high[:6]

    def last(drawn: list[dict[str, Any]]) -> float:
        tail = [math.log10(one["train.lr"]) for one in drawn[-8:]]
        return sum(tail) / len(tail)

    assert last(low) < -3.3 and last(high) > -2.8, (last(low), last(high))


def test_a_study_is_kept_where_a_dashboard_reads_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(3, "basic")
    store = storage(chosen, Lake(str(tmp_path)))
    search = searcher(chosen, store, "kept")
    search.suggest("0")
    search.on_trial_complete("0", {METRIC: 0.7, "training_iteration": 1})
    (trial,) = optuna.load_study(study_name="kept", storage=f"sqlite:///{tmp_path}/sweeps/optuna.db").trials
    assert trial.value == 0.7 and set(trial.params) == set(chosen.space)
    named = chosen.model_copy(update={"storage": f"sqlite:///{tmp_path}/named.db"})
    searcher(named, storage(named, Lake("s3://bucket/lake")), "named").suggest("0")
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/named.db") == ["named"]
