"""A trial: the training stage with drawn settings, in a child run of the sweep's MLflow run."""

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

PARENT, TRIAL, END_REASON = "mlflow.parentRunId", "chestai.trial", "chestai.ended"


def train_trial(params: dict[str, Any], plain: dict[str, Any], snapshot: Snapshot, parent_id: str) -> None:
    """Train with the drawn settings and report each epoch; Tune runs this function.

    If Tune starts a trial again after its sweep was resumed, the trial continues in its run from its last checkpoint.
    """
    # Tune counts each report as an epoch, so there must be none in between.
    fixed = {"train.epochs": plain["tune"]["epochs"], "train.checkpoint_minutes": sys.float_info.max}
    config = conf.apply_changes(conf.validate(plain), {**params, **fixed})
    registry, trial = Registry(config.tracking, Lake(config.lake)), tune.get_context().get_trial_id()
    earlier = next((run for run in list_trial_runs(registry, parent_id) if run.data.tags[TRIAL] == trial), None)
    run = earlier or _create_run(registry, snapshot, parent_id, str(trial), params)
    build_trainer(config, registry, snapshot, run.info.run_id, callbacks=[TuneReportCallback()]).fit()


def end_trial_runs(registry: Registry, parent_id: str, results: tune.ResultGrid | None, epochs: int) -> None:
    """End the trials' runs and record the reason. The driver does this because Tune stops trials without notice.

    Args:
        results: None if the sweep was broken off.
        epochs: Epochs of a trial that ran to its end.
    """
    client = registry.connect()
    ended = [results[index] for index in range(len(results))] if results is not None else []
    for run in list_trial_runs(registry, parent_id):
        result = next((result for result in ended if run.data.tags[TRIAL] in result.path), None)
        status, reason = _describe_outcome(result, epochs) if result else ("KILLED", "the sweep was broken off")
        client.set_tag(run.info.run_id, END_REASON, reason)
        client.set_terminated(run.info.run_id, status)
        if result is not None:
            remove_checkpoints(registry.lake, run.info.run_id)


def list_trial_runs(registry: Registry, parent_id: str) -> list[Run]:
    """List the MLflow runs of a sweep's trials."""
    client = registry.connect()
    experiment = client.get_experiment_by_name(registry.tracking.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`{PARENT}` = '{parent_id}'", max_results=10_000))


def _create_run(registry: Registry, snapshot: Snapshot, parent_id: str, trial: str, params: dict[str, Any]) -> Run:
    client = registry.connect()
    experiment = client.get_experiment_by_name(registry.tracking.experiment)
    assert experiment is not None
    tags = {PARENT: parent_id, TRIAL: trial, "chestai.stage": "trial", "chestai.snapshot": snapshot.snapshot_id}
    run = client.create_run(experiment.experiment_id, run_name=f"trial-{trial}", tags=tags)
    for key, value in params.items():
        client.log_param(run.info.run_id, key, value)
    return run


def format_error(error: Exception) -> str:
    """Format the message of an error that crossed processes, without its traceback."""
    lines = str(error).strip().splitlines()
    starts = [index for index, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return " ".join(" ".join(lines[starts[-1] if starts else 0 :]).split())[:1000]


def _describe_outcome(result: tune.Result, epochs: int) -> tuple[str, str]:
    """Return the MLflow status of a trial's run, and why it ended."""
    done = (result.metrics or {}).get("epoch", 0)
    if result.error is not None:
        return "FAILED", f"failed after {done} epochs: {format_error(result.error)}"
    return "FINISHED", "ran to its end" if done >= epochs else f"stopped after {done} of {epochs} epochs"
