"""Search for better training settings: Ray Tune + Optuna + ASHA, one MLflow child run a trial.

Features: each trial launches the very training of `pipelines.train` through Ray Train; all of one image size share one
pixel cache; ASHA stops the poor ones early; the search space (`tune=basic`, `tune=wide`) is data, and may have settings
that depend on others; the study is kept for `optuna-dashboard`; plots, and the best settings as an experiment file, at
the sweep's run. `tune.resume=RUN_ID` goes on with a sweep whose driver was lost. `tune.promote=true` trains the best
settings at full length and takes the model through the gate.

Raises UserError: no build, no training images, an impossible space, nothing to resume.
"""

import contextlib
import time
from collections.abc import Iterator

import mlflow
import ray
from mlflow.exceptions import MlflowException
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from chestai.cli.console import Screen
from chestai.cli.main import stage_command
from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.registry import Registry
from pipelines import evaluate, train
from pipelines.cluster import check_room, ray_cluster, run_in_thread
from pipelines.data.pixel_cache import pixel_cache
from tune.plots import log_plots
from tune.progress import trial_progress
from tune.search import METRIC, MODE, scheduler, searcher, storage, study_of
from tune.space import as_experiment, check, values_of
from tune.trial import end_trials, reason, train_trial

CONFIG = "config.json"

# A trial waits while its workers work. It stands beside the driver, so that a node that goes takes workers alone, and
# these Ray Train starts again; and it takes no core, so that trials cannot keep each other's workers out.
ON_HEAD = {"CPU": 0, "node:__internal_head__": 0.001}


def run(config: Config, screen: Screen) -> Summary:
    """Run the sweep on the newest snapshot, or go on with one on its own."""
    started = time.monotonic()
    registry = Registry(config.tracking, Lake(config.lake))
    snapshot = registry.lake.snapshot()
    if config.tune.resume is not None:
        config, snapshot = _resumed(config, registry)
    settings = config.tune
    _check(config, registry.lake, snapshot)
    with ray_cluster(config.cluster, dashboard=True), _sweep_run(config, screen, registry, snapshot) as parent_id:
        _need_dashboard()
        results = _searched(config, screen, registry, snapshot, parent_id)
        best = _best(results)
        chosen = best.config or {}
        reached = _best_epoch(best)
        mlflow.log_params({f"best.{name}": value for name, value in chosen.items()})
        mlflow.log_text(as_experiment(chosen), "best.yaml")
        mlflow.log_metric("best_val_macro_auroc", reached)
    overrides = " ".join(f"{name}={_text(value)}" for name, value in chosen.items())
    facts = {
        "headline": f"best val macro-AUROC {reached:.3f}",
        "failed": results.num_errors,
        "epochs": sum((results[index].metrics or {}).get("epoch", 0) for index in range(len(results))),
        "best": overrides,
        "run": parent_id,
        "next": f"python -m pipelines.train {overrides}",
    }
    if settings.promote:
        with ray_cluster(config.cluster):
            full = conf.with_changes(config, chosen)
            train.run(full, screen)
            facts["promote"] = evaluate.run(full, screen).facts["verdict"]
    summary = Summary("sweep", len(results), "trials", time.monotonic() - started, facts)
    summary.save(registry.lake)
    return summary


def _check(config: Config, lake: Lake, snapshot: Snapshot) -> None:
    """Refuse now what would fail in every trial, or after the cache is built."""
    check(config.tune.space)
    storage(config.tune, lake)
    for policy in values_of(config.tune.space, "train.uncertainty", config.train.uncertainty):
        train.check(conf.with_changes(config, {"train.uncertainty": policy}), lake, snapshot)


def _need_dashboard() -> None:
    """Refuse a cluster without Ray's dashboard.

    A trial that Tune stops cannot give its workers' cores back. An actor of Ray Train does, which asks the dashboard
    who lives; without an answer the cores stay taken, until a trial waits for ever.
    """
    try:
        list_actors(ray.get_runtime_context().gcs_address, limit=1)
    except RayStateApiException as error:
        raise UserError(
            "a sweep needs Ray's dashboard: start the cluster's head with --include-dashboard=true"
        ) from error


def room(config: Config) -> int:
    """How many trials may train at a time without waiting for each other: by GPUs, or for want of any a node each.

    What is up counts. A cluster that grows by need has to be told: `tune.max_concurrent`.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(node.get("GPU", 0) if config.train.gpu else node.get("CPU", 0) >= 1 for node in nodes)
    return max(1, int(slots) // config.train.workers)


def _searched(
    config: Config, screen: Screen, registry: Registry, snapshot: Snapshot, parent_id: str
) -> tune.ResultGrid:
    """Run the trials, or what is left of them, and end their runs, whatever happens."""
    settings, lake = config.tune, registry.lake
    check_room(config.cluster, config.train.workers, config.train.gpu)
    for size in values_of(settings.space, "network.size", config.network.size):
        pixel_cache(lake, snapshot, size, screen)
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, plain=config.plain(), snapshot=snapshot, parent_id=parent_id),
        ON_HEAD,
    )
    if settings.resume is not None:
        tuner = tune.Tuner.restore(lake.uri("sweeps", parent_id), trainable)
    else:
        search = searcher(settings, storage(settings, lake), parent_id)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=settings.trials,
                search_alg=ConcurrencyLimiter(search, max_concurrent=settings.max_concurrent or room(config)),
                scheduler=scheduler(settings),
            ),
            run_config=tune.RunConfig(name=parent_id, storage_path=lake.uri("sweeps"), verbose=0),
        )
    results = None
    try:
        with screen.progress("sweep", settings.trials * settings.epochs, "epochs") as progress:
            look = trial_progress(lambda: study_of(tuner), progress, settings.trials, settings.epochs)
            results = run_in_thread(tuner.fit, look, every=2.0)
    finally:
        end_trials(registry, parent_id, results, settings.epochs)
    log_plots(study_of(tuner))
    return results


def _best(results: tune.ResultGrid) -> tune.Result:
    """The trial with the best epoch. Raises `RuntimeError` where every one failed before its first."""
    if results.errors and all("epoch" not in (results[index].metrics or {}) for index in range(len(results))):
        first = reason(results.errors[0])
        raise RuntimeError(f"each of the {len(results)} trials failed before its first epoch, one by {first}")
    return results.get_best_result(METRIC, MODE, scope="all")


def _best_epoch(trial: tune.Result) -> float:
    """The val macro-AUROC of a trial's best epoch, which `metrics`, those of its last one, does not tell."""
    epochs = trial.metrics_dataframe
    assert epochs is not None
    return float(epochs.sort_values(METRIC)["val_macro_auroc"].iloc[-1])


@contextlib.contextmanager
def _sweep_run(config: Config, screen: Screen, registry: Registry, snapshot: Snapshot) -> Iterator[str]:
    """The sweep's MLflow run, new or gone on with."""
    client = registry.connect()
    if config.tune.resume is not None:
        with mlflow.start_run(run_id=config.tune.resume):
            yield config.tune.resume
        return
    tags = {"chestai.stage": "sweep", "chestai.snapshot": snapshot.snapshot_id}
    run_id = ""
    try:
        with mlflow.start_run(run_name="sweep", tags=tags) as active:
            run_id = active.info.run_id
            plain = config.plain()
            plain["tune"].pop("storage")  # its URL may hold a password
            mlflow.log_dict({**plain, "tune": {**plain["tune"], "storage": None}}, CONFIG)
            mlflow.log_params({f"tune.{name}": value for name, value in plain["tune"].items() if name != "space"})
            yield run_id
    except BaseException as error:
        if run_id and isinstance(error, KeyboardInterrupt):
            client.set_terminated(run_id, "KILLED")  # MLflow calls every exception a failure
        if tune.Tuner.can_restore(registry.lake.uri("sweeps", run_id)):
            screen.say(f"sweep: to go on with it: lake={registry.lake.root} tune.resume={run_id}")
        raise


def _resumed(now: Config, registry: Registry) -> tuple[Config, Snapshot]:
    """The settings and the snapshot of the sweep to go on with; where it runs is as told now."""
    run_id = now.tune.resume
    try:
        found = registry.connect().get_run(str(run_id))
    except MlflowException as error:
        raise UserError(f"tune.resume={run_id}: {registry.uri} has no such run") from error
    if found.data.tags.get("chestai.stage") != "sweep":
        raise UserError(f"tune.resume={run_id} is not a run of tune.sweep")
    if found.info.status == "FINISHED":
        raise UserError(f"tune.resume={run_id} is finished: there is nothing to resume")
    if not tune.Tuner.can_restore(registry.lake.uri("sweeps", str(run_id))):
        raise UserError(f"tune.resume={run_id} left no state in {registry.lake.uri('sweeps')}: start it anew")
    before = conf.validate(mlflow.artifacts.load_dict(f"{found.info.artifact_uri}/{CONFIG}"))
    places = {name: getattr(now, name) for name in ("lake", "tracking", "cluster")}
    told = {"resume": run_id, "promote": now.tune.promote, "storage": now.tune.storage}
    snapshot = registry.lake.snapshot(found.data.tags["chestai.snapshot"])
    return before.model_copy(update={**places, "tune": before.tune.model_copy(update=told)}), snapshot


def _text(value: object) -> str:
    """A setting as a command line takes it."""
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)


if __name__ == "__main__":
    stage_command("tune.sweep", run)
