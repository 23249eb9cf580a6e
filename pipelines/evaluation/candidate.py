"""The candidate for `champion`: the model registered last for the newest snapshot."""

import time
from dataclasses import dataclass
from typing import Any

from chestai.cli.summary import Summary
from chestai.errors import UserError
from pipelines.evaluation.context import EvaluationRun

CANDIDATE = "candidate"  # what `evaluate.model` calls it
STAGES = ("train", "derive")  # the stages that register models


@dataclass(frozen=True)
class Candidate:
    """A registered version and the MLflow run that made it."""

    version: int
    run_id: str


def find_candidate(run: EvaluationRun) -> Candidate:
    """Find the model that was registered last for the snapshot.

    Raises:
        UserError: the options fit no candidate, there is no trained model, or its run registered none.
    """
    settings, snapshot = run.config.evaluate, run.snapshot
    if settings.tta:
        raise UserError(
            "tta= needs model=VERSION: a candidate is judged as it was registered; `python -m pipelines.derive` "
            "registers one with these views"
        )
    if settings.split != "test":
        raise UserError(f"split={settings.split} needs model=VERSION: a candidate is only judged on test")
    runs = [
        finished
        for stage in STAGES
        for finished in run.registry.finished_runs({"chestai.stage": stage, "chestai.snapshot": snapshot.snapshot_id})
    ]
    if not runs:
        raise UserError(
            f"no trained model for snapshot {snapshot.snapshot_id}: "
            f"run `python -m pipelines.train lake={run.config.lake}`"
        )
    run_id = max(runs, key=lambda finished: finished.info.start_time).info.run_id
    version = run.registry.version_of(run_id)
    if version is None:
        raise UserError(f"run {run_id} has no registered model: train again with force=true")
    return Candidate(version, run_id)


def find_earlier_summary(run: EvaluationRun, candidate: Candidate) -> Summary | None:
    """The summary of the last evaluation if it had the same inputs, so that its verdict still holds."""
    report = run.lake.read_report("evaluate")
    if report is None or run.config.force or report["facts"].get("done") != list_inputs(run, candidate):
        return None
    headline = "already evaluated: " + report["facts"]["headline"].removeprefix("already evaluated: ")
    return Summary("evaluate", 0, "images", time.monotonic() - run.started, {**report["facts"], "headline": headline})


def list_inputs(run: EvaluationRun, candidate: Candidate) -> dict[str, Any]:
    """Everything that an evaluation and its verdict depend on."""
    config = run.config.plain()
    return {
        **{name: config[name] for name in ("evaluate", "gate", "queue")},
        "snapshot": run.snapshot.snapshot_id,
        "version": candidate.version,
        "champion": run.registry.champion(),
        "rolled_back": run.registry.rolled_back(candidate.version),
    }
