"""The searcher: the same seed and the same results give the same sweep."""

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from chestai.config import load as conf
from chestai.config.schema import Tune
from chestai.lake.lake import Lake
from tune.search import METRIC, build_searcher, open_storage

TRIALS = 24


def load_settings(seed: int, space: str = "wide") -> Tune:
    return conf.load([f"tune={space}", f"tune.seed={seed}", f"tune.trials={TRIALS}"]).tune


def peak_at(lr: float) -> Callable[[dict[str, Any]], float]:
    """A training result that is best at a learning rate."""
    return lambda drawn: 0.9 - 0.1 * abs(math.log10(drawn["train.lr"] / lr))


def run_sweep(settings: Tune, outcome: Callable[[dict[str, Any]], float]) -> list[dict[str, Any]]:
    """The suggestions for trials that run one after another and report each epoch."""
    searcher = build_searcher(settings, optuna.storages.InMemoryStorage(), "study")
    drawn = []
    for number in range(TRIALS):
        trial = str(number)
        drawn.append(searcher.suggest(trial) or {})
        value = outcome(drawn[-1])
        for epoch in (1, 2):
            searcher.on_trial_result(trial, {METRIC: value * epoch / 2, "training_iteration": epoch})
        searcher.on_trial_complete(trial, {METRIC: value, "training_iteration": 2})
    return drawn


def test_same_seed_suggests_the_same_sweep() -> None:
    first = run_sweep(load_settings(3), peak_at(1e-3))
    assert first == run_sweep(load_settings(3), peak_at(1e-3))
    assert first != run_sweep(load_settings(4), peak_at(1e-3))
    assert len({drawn["train.lr"] for drawn in first}) == TRIALS


def test_later_suggestions_follow_the_results() -> None:
    """After the first trials, drawn at random, a sweep moves to where results were good."""
    low, high = (run_sweep(load_settings(3, "basic"), peak_at(lr)) for lr in (2e-4, 4e-3))
    assert low[:6] == high[:6]

    def average_last(drawn: list[dict[str, Any]]) -> float:
        tail = [math.log10(settings["train.lr"]) for settings in drawn[-8:]]
        return sum(tail) / len(tail)

    assert average_last(low) < -3.3 and average_last(high) > -2.8, (average_last(low), average_last(high))


def test_finished_trial_may_be_reported_again() -> None:
    """Its driver was killed after the study had finished it, so a resumed sweep repeats it."""
    storage = optuna.storages.InMemoryStorage()
    searcher = build_searcher(load_settings(3), storage, "study")
    searcher.suggest("a")
    searcher.on_trial_result("a", {METRIC: 0.7, "training_iteration": 1})
    study = optuna.load_study(study_name="study", storage=storage)
    study.tell(0, 0.7)
    searcher.on_trial_result("a", {METRIC: 0.1, "training_iteration": 2})
    searcher.on_trial_complete("a", {METRIC: 0.1, "training_iteration": 2})
    assert study.trials[0].value == 0.7 and study.trials[0].intermediate_values == {1: 0.7}


def test_study_is_stored_where_a_dashboard_reads_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = load_settings(3, "basic")
    store = open_storage(chosen, Lake(str(tmp_path)))
    searcher = build_searcher(chosen, store, "kept")
    searcher.suggest("0")
    searcher.on_trial_complete("0", {METRIC: 0.7, "training_iteration": 1})
    (trial,) = optuna.load_study(study_name="kept", storage=f"sqlite:///{tmp_path}/sweeps/optuna.db").trials
    assert trial.value == 0.7 and set(trial.params) == set(chosen.space)
    named = chosen.model_copy(update={"storage": f"sqlite:///{tmp_path}/named.db"})
    build_searcher(named, open_storage(named, Lake("s3://bucket/lake")), "named").suggest("0")
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/named.db") == ["named"]
