"""Search for better training settings: Ray Tune + Optuna + ASHA, one MLflow child run a trial.

Features: each trial launches the very training of `pipelines.train` through Ray Train; all share one pixel cache; ASHA
stops the poor ones early; the best settings are printed as overrides for `python -m pipelines.train`.

Raises UserError: no build, no training images.
"""

import math
import sys
import time
from typing import Any

import mlflow
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from chestai import config as conf
from chestai.command import Summary, as_command
from chestai.lake import Lake, Snapshot
from chestai.registry import Registry
from chestai.screen import Screen
from chestai.sections import Config
from pipelines.cluster import check_room, connected
from pipelines.feed import pixel_cache
from pipelines.train import build_trainer, forget

SPACE: dict[str, Any] = {
    "train.lr": tune.loguniform(1e-4, 5e-3),
    "train.weight_decay": tune.loguniform(1e-6, 1e-2),
    "network.dropout": tune.uniform(0.0, 0.4),
}


def run(config: Config, screen: Screen) -> Summary:
    """Run the sweep on the newest snapshot."""
    started = time.monotonic()
    lake = Lake(config.lake)
    snapshot = lake.snapshot()
    registry = Registry(config.tracking, lake)
    registry.connect()
    settings = config.tune
    with connected(config.cluster), mlflow.start_run(run_name="sweep") as parent:
        mlflow.set_tags({"chestai.stage": "sweep", "chestai.snapshot": snapshot.snapshot_id})
        mlflow.log_params({f"tune.{name}": value for name, value in config.plain()["tune"].items()})
        check_room(config.cluster, config.train.workers, config.train.gpu)
        pixel_cache(lake, snapshot, config.network.size, screen)
        search = OptunaSearch(metric="selection", mode="max", seed=settings.seed)
        trainable = tune.with_parameters(_trial, plain=config.plain(), snapshot=snapshot, parent_id=parent.info.run_id)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 0.1}),  # the trial waits; its workers do the work
            param_space=SPACE,
            tune_config=tune.TuneConfig(
                num_samples=settings.trials,
                search_alg=ConcurrencyLimiter(search, max_concurrent=settings.max_concurrent),
                scheduler=ASHAScheduler("epoch", metric="selection", mode="max", max_t=settings.epochs),
            ),
            run_config=tune.RunConfig(name=parent.info.run_id, storage_path=lake.uri("sweeps"), verbose=0),
        )
        results = None
        try:
            results = tuner.fit()
        finally:
            _close(registry, lake, parent.info.run_id, results)
        best = results.get_best_result("selection", "max", scope="all")
        metrics, chosen = best.metrics or {}, best.config or {}
        mlflow.log_params({f"best.{name}": value for name, value in chosen.items()})
        mlflow.log_metric("best_val_macro_auroc", metrics.get("val_macro_auroc", math.nan))
    overrides = " ".join(f"{name}={value:.4g}" for name, value in chosen.items())
    summary = Summary(
        "sweep",
        len(results),
        "trials",
        time.monotonic() - started,
        {
            "headline": f"best val macro-AUROC {metrics.get('val_macro_auroc', math.nan):.3f}",
            "failed": results.num_errors,
            "best": overrides,
            "run": parent.info.run_id,
            "next": f"python -m pipelines.train {overrides}",
        },
    )
    summary.save(lake)
    return summary


def _trial(params: dict[str, float], plain: dict[str, Any], snapshot: Snapshot, parent_id: str) -> None:
    """One trial: the training stage with the drawn settings, in a child run of its own."""
    # Tune takes each report for an epoch, so there must be none in between.
    fixed = {"train.epochs": plain["tune"]["epochs"], "train.checkpoint_minutes": sys.float_info.max}
    config = conf.validate(_with(plain, {**params, **fixed}))
    registry = Registry(config.tracking, Lake(config.lake))
    client = registry.connect()
    tags = {
        "mlflow.parentRunId": parent_id,
        "chestai.stage": "trial",
        "chestai.snapshot": snapshot.snapshot_id,
    }
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    assert experiment is not None
    trial = tune.get_context().get_trial_id()
    tags["chestai.trial"] = trial
    run_id = client.create_run(experiment.experiment_id, run_name=f"trial-{trial}", tags=tags).info.run_id
    for key, value in params.items():
        client.log_param(run_id, key, value)
    build_trainer(config, registry, snapshot, run_id, callbacks=[TuneReportCallback()]).fit()


def _close(registry: Registry, lake: Lake, parent_id: str, results: tune.ResultGrid | None) -> None:
    """End the child runs, from here: Tune ends a trial that reached its last epoch or was stopped, without a word."""
    client = registry.connect()
    experiment = client.get_experiment_by_name(registry.tracking.experiment)
    assert experiment is not None
    ended = [results[index] for index in range(len(results))] if results is not None else []
    failed = [str(one.path) for one in ended if one.error is not None]
    children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'")
    for run in children:
        trial = run.data.tags["chestai.trial"]
        broken = any(trial in path for path in failed)
        client.set_terminated(run.info.run_id, "KILLED" if results is None else "FAILED" if broken else "FINISHED")
        forget(lake, run.info.run_id)


def _with(plain: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with dotted keys replaced."""
    changed = {name: dict(value) if isinstance(value, dict) else value for name, value in plain.items()}
    for key, value in overrides.items():
        section, name = key.split(".")
        changed[section][name] = value
    return changed


if __name__ == "__main__":
    as_command("tune.sweep", run)
