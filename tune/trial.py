"""A trial: the training stage with drawn settings, in an MLflow run of its own below the sweep's."""

import re
import sys
from typing import Any

from mlflow.entities import Run
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.registry import Registry
from pipelines.training.trainer import build_trainer, remove_checkpoints

PARENT, TRIAL, ENDED = "mlflow.parentRunId", "chestai.trial", "chestai.ended"


def train_trial(params: dict[str, Any], plain: dict[str, Any], snapshot: Snapshot, parent_id: str) -> None:
    """What Tune runs: train with the drawn settings and report each epoch.

    A trial that Tune starts again, after its sweep was resumed, goes on in its run from its last checkpoint.
    """
    # Tune takes each report for an epoch, so there must be none in between.
    fixed = {"train.epochs": plain["tune"]["epochs"], "train.checkpoint_minutes": sys.float_info.max}
    config = conf.with_changes(conf.validate(plain), {**params, **fixed})
    registry, trial = Registry(config.tracking, Lake(config.lake)), tune.get_context().get_trial_id()
    before = next((run for run in trial_runs(registry, parent_id) if run.data.tags[TRIAL] == trial), None)
    run_id = before.info.run_id if before is not None else _new_run(registry, snapshot, parent_id, str(trial), params)
    build_trainer(config, registry, snapshot, run_id, callbacks=[TuneReportCallback()]).fit()


def end_trials(registry: Registry, parent_id: str, results: tune.ResultGrid | None, epochs: int) -> None:
    """End the trials' runs with the reason, from here: Tune ends a trial that is stopped without a word to it.

    Args:
        results: None where the sweep was broken off.
        epochs: of a trial that ran to its end.
    """
    client = registry.connect()
    ended = [results[index] for index in range(len(results))] if results is not None else []
    for run in trial_runs(registry, parent_id):
        result = next((one for one in ended if run.data.tags[TRIAL] in one.path), None)
        status, reason = _outcome(result, epochs) if result else ("KILLED", "the sweep was broken off")
        client.set_tag(run.info.run_id, ENDED, reason)
        client.set_terminated(run.info.run_id, status)
        if result is not None:
            remove_checkpoints(registry.lake, run.info.run_id)


def trial_runs(registry: Registry, parent_id: str) -> list[Run]:
    """The runs of a sweep's trials."""
    client = registry.connect()
    experiment = client.get_experiment_by_name(registry.tracking.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`{PARENT}` = '{parent_id}'", max_results=10_000))


def _new_run(registry: Registry, snapshot: Snapshot, parent_id: str, trial: str, params: dict[str, Any]) -> str:
    client = registry.connect()
    experiment = client.get_experiment_by_name(registry.tracking.experiment)
    assert experiment is not None
    tags = {PARENT: parent_id, TRIAL: trial, "chestai.stage": "trial", "chestai.snapshot": snapshot.snapshot_id}
    run = client.create_run(experiment.experiment_id, run_name=f"trial-{trial}", tags=tags)
    for key, value in params.items():
        client.log_param(run.info.run_id, key, value)
    return str(run.info.run_id)


def reason(error: Exception) -> str:
    """What an error that crossed processes says, without the calls that led to it."""
    lines = str(error).strip().splitlines()
    starts = [at for at, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return " ".join(" ".join(lines[starts[-1] if starts else 0 :]).split())[:1000]


def _outcome(result: tune.Result, epochs: int) -> tuple[str, str]:
    """MLflow's status of a trial's run, and why it ended."""
    done = (result.metrics or {}).get("epoch", 0)
    if result.error is not None:
        return "FAILED", f"failed after {done} epochs: {reason(result.error)}"
    return "FINISHED", "ran to its end" if done >= epochs else f"stopped after {done} of {epochs} epochs"
