"""Searches for better training settings with Ray Tune, Optuna and ASHA; each trial is an MLflow child run of the sweep.

Each trial runs the training of `pipelines.train` through Ray Train; trials of the same image size share one pixel
cache. ASHA stops poor trials early. The search space (`tune=basic`, `tune=wide`) is data and may have settings that
depend on others. The study is kept for `optuna-dashboard`. Plots, and the best settings as an experiment file, are
logged to the sweep's run. `tune.resume=RUN_ID` continues a sweep whose driver was lost. `tune.promote=true` trains the
best settings at full length and takes the model through the promotion gate.

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
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.registry import Registry
from pipelines import evaluate, train
from pipelines.cluster import check_capacity, ray_cluster, run_in_thread
from pipelines.data.pixel_cache import build_pixel_cache
from pipelines.training.teacher import ask_teacher, pin_teacher
from tune.plots import log_plots
from tune.progress import update_progress
from tune.search import METRIC, MODE, build_scheduler, build_searcher, get_study, open_storage
from tune.space import check_space, format_experiment, list_values
from tune.trial import end_trial_runs, format_error, train_trial

CONFIG = "config.json"

# A trial waits while its workers work. It runs beside the driver, so that a lost node takes only workers, which Ray
# Train starts again. And it takes no core, so that trials cannot block each other's workers.
ON_HEAD = {"CPU": 0, "node:__internal_head__": 0.001}


def run(config: Config, screen: Screen) -> Summary:
    """Run a sweep on the newest snapshot, or resume one on its own snapshot."""
    started = time.monotonic()
    registry = Registry(config.tracking, Lake(config.lake))
    snapshot, config = registry.lake.find_snapshot(), pin_teacher(config, registry)
    if config.tune.resume is not None:
        config, snapshot = _load_lost_sweep(config, registry)
    _check_feasible(config, registry.lake, snapshot)
    with ray_cluster(config.cluster, dashboard=True), _start_mlflow_run(config, screen, registry, snapshot) as run_id:
        _require_dashboard()
        results = _run_trials(config, screen, registry, snapshot, run_id)
        best = _select_best_trial(results)
        settings, auroc = best.config or {}, _get_best_auroc(best)
        mlflow.log_params({f"best.{name}": value for name, value in settings.items()})
        mlflow.log_text(format_experiment(settings), "best.yaml")
        mlflow.log_metric("best_val_macro_auroc", auroc)
    overrides = " ".join(f"{name}={_format_value(value)}" for name, value in settings.items())
    facts = {
        "headline": f"best val macro-AUROC {auroc:.3f}",
        "failed": results.num_errors,
        "epochs": sum((results[index].metrics or {}).get("epoch", 0) for index in range(len(results))),
        "best": overrides,
        "run": run_id,
        "next": f"python -m pipelines.train {overrides}",
    }
    if config.tune.promote:
        with ray_cluster(config.cluster):
            full = conf.apply_changes(config, settings)
            train.run(full, screen)
            facts["promote"] = evaluate.run(full, screen).facts["verdict"]
    summary = Summary("sweep", len(results), "trials", time.monotonic() - started, facts)
    summary.save(registry.lake)
    return summary


def _check_feasible(config: Config, lake: Lake, snapshot: Snapshot) -> None:
    """Raise `UserError` for what would fail in every trial, or only after the cache is built."""
    check_space(config.tune.space)
    open_storage(config.tune, lake)
    for policy in list_values(config.tune.space, "train.uncertainty", config.train.uncertainty):
        train.check_feasible(conf.apply_changes(config, {"train.uncertainty": policy}), lake, snapshot)


def _require_dashboard() -> None:
    """Raise `UserError` on a cluster without Ray's dashboard.

    A trial that Tune stops cannot give its workers' cores back. An actor of Ray Train does that, and it asks the
    dashboard which trials are alive. Without an answer the cores stay taken, until a trial waits forever.
    """
    try:
        list_actors(ray.get_runtime_context().gcs_address, limit=1)
    except RayStateApiException as error:
        raise UserError(
            "a sweep needs Ray's dashboard: start the cluster's head with --include-dashboard=true"
        ) from error


def count_trial_slots(config: Config) -> int:
    """Count the trials that can train at once without waiting for each other: by GPUs, or without GPUs by nodes.

    Only nodes that are up count. For a cluster that grows on demand, set `tune.max_concurrent`.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(node.get("GPU", 0) if config.train.gpu else node.get("CPU", 0) >= 1 for node in nodes)
    return max(1, int(slots) // config.train.most_workers)


def _run_trials(
    config: Config, screen: Screen, registry: Registry, snapshot: Snapshot, parent_id: str
) -> tune.ResultGrid:
    """Run the trials that are left, and end their MLflow runs whatever happens."""
    settings, lake = config.tune, registry.lake
    check_capacity(config.cluster, config.train.fewest_workers, config.train.gpu)
    for size in list_values(settings.space, "network.size", config.network.size):
        build_pixel_cache(lake, snapshot, size, screen)
    ask_teacher(config, registry, snapshot, screen)
    tuner = _build_tuner(config, lake, snapshot, parent_id)
    results = None
    try:
        with screen.progress("sweep", settings.trials * settings.epochs, "epochs") as progress:
            results = run_in_thread(
                tuner.fit,
                lambda: update_progress(get_study(tuner), progress, settings.trials, settings.epochs),
                every=2.0,
            )
    finally:
        end_trial_runs(registry, parent_id, results, settings.epochs)
    log_plots(get_study(tuner))
    return results


def _build_tuner(config: Config, lake: Lake, snapshot: Snapshot, parent_id: str) -> tune.Tuner:
    settings = config.tune
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, plain=config.plain(), snapshot=snapshot, parent_id=parent_id), ON_HEAD
    )
    if settings.resume is not None:
        return tune.Tuner.restore(lake.uri("sweeps", parent_id), trainable)
    searcher = build_searcher(settings, open_storage(settings, lake), parent_id)
    concurrent = settings.max_concurrent or count_trial_slots(config)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=settings.trials,
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=concurrent),
            scheduler=build_scheduler(settings),
        ),
        run_config=tune.RunConfig(name=parent_id, storage_path=lake.uri("sweeps"), verbose=0),
    )


def _select_best_trial(results: tune.ResultGrid) -> tune.Result:
    """Select the trial with the best epoch. Raises `RuntimeError` if every trial failed before its first epoch."""
    if results.errors and all("epoch" not in (results[index].metrics or {}) for index in range(len(results))):
        first = format_error(results.errors[0])
        raise RuntimeError(f"each of the {len(results)} trials failed before its first epoch, one by {first}")
    return results.get_best_result(METRIC, MODE, scope="all")


def _get_best_auroc(trial: tune.Result) -> float:
    """Return the val macro-AUROC of a trial's best epoch; `metrics` only has its last epoch."""
    epochs = trial.metrics_dataframe
    assert epochs is not None
    return float(epochs.sort_values(METRIC)["val_macro_auroc"].iloc[-1])


@contextlib.contextmanager
def _start_mlflow_run(config: Config, screen: Screen, registry: Registry, snapshot: Snapshot) -> Iterator[str]:
    """Start the sweep's MLflow run, or resume it; yields its ID."""
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
            client.set_terminated(run_id, "KILLED")  # MLflow records every exception as a failure
        if tune.Tuner.can_restore(registry.lake.uri("sweeps", run_id)):
            screen.say(f"sweep: to resume it: lake={registry.lake.root} tune.resume={run_id}")
        raise


def _load_lost_sweep(current: Config, registry: Registry) -> tuple[Config, Snapshot]:
    """Load the settings and the snapshot of the sweep to resume. Where it runs follows the current settings."""
    run_id = current.tune.resume
    try:
        lost = registry.connect().get_run(str(run_id))
    except MlflowException as error:
        raise UserError(f"tune.resume={run_id}: {registry.uri} has no such run") from error
    if lost.data.tags.get("chestai.stage") != "sweep":
        raise UserError(f"tune.resume={run_id} is not a run of tune.sweep")
    if lost.info.status == "FINISHED":
        raise UserError(f"tune.resume={run_id} is finished: there is nothing to resume")
    if not tune.Tuner.can_restore(registry.lake.uri("sweeps", str(run_id))):
        raise UserError(f"tune.resume={run_id} left no state in {registry.lake.uri('sweeps')}: start a new sweep")
    config = conf.validate(mlflow.artifacts.load_dict(f"{lost.info.artifact_uri}/{CONFIG}"))
    sections = {name: getattr(current, name) for name in ("lake", "tracking", "cluster")}
    changes = {"resume": run_id, "promote": current.tune.promote, "storage": current.tune.storage}
    snapshot = registry.lake.find_snapshot(lost.data.tags["chestai.snapshot"])
    return config.model_copy(update={**sections, "tune": config.tune.model_copy(update=changes)}), snapshot


def _format_value(value: object) -> str:
    """Format a setting for the command line."""
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)


if __name__ == "__main__":
    run_stage_command("tune.sweep", run)
