"""Derive: a new registered version out of registered ones, without training.

Features: several versions as one ensemble (`model=3+5`), test-time augmentation (`tta=[rotate,zoom]`), another
calibration, one that is moved to a site's prevalence, triage weights and bounds tuned on val for a stated goal. The
input gate is that of the (first) model, and so is the drift reference but for the scores, which are those on val. The
result is a model like any other: `pipelines.evaluate` judges it next, scoring and the endpoint take it.

Raises UserError: no such version, members that do not go together, patients in training and val, a goal out of reach.
"""

import time
from dataclasses import replace

import mlflow

from chestai.cli.console import Screen
from chestai.cli.main import stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle, assemble
from chestai.model.calibrate import recalibrate
from chestai.model.registry import Registry
from chestai.triage.tuning import tune
from pipelines.cluster import ray_cluster
from pipelines.evaluation import leakage
from pipelines.inference.labelled_predictions import LabelledPredictions, predict_labelled
from pipelines.training.monitors import with_scores
from pipelines.training.register import register


def run(config: Config, screen: Screen) -> Summary:
    """Assemble, calibrate and tune on val of the newest snapshot, register."""
    started = time.monotonic()
    lake = Lake(config.lake)
    snapshot = lake.snapshot()
    registry = Registry(config.tracking, lake)
    settings = config.derive
    models = registry.load_all(settings.model)
    bundle = assemble([model.bundle for model in models], settings.tta)
    made_of = "+".join(str(model.version) for model in models)
    title = f"{config.tracking.model} version {made_of}"
    unknown = sorted(set(settings.prevalence or {}) - set(bundle.card.findings))
    if unknown:
        raise UserError(f"derive.prevalence.{unknown[0]}: {title} has no such finding")
    if snapshot.splits.get("val", {}).get("files", 0) == 0:
        raise UserError(f"snapshot {snapshot.snapshot_id} has no frontal val image with a file to calibrate on")
    leakage.check_leakage(bundle, title, lake, snapshot, ["val"])
    with ray_cluster(config.cluster):
        val = predict_labelled(bundle, lake, snapshot, ["val"], config.evaluate.batch_size, screen)
    bundle = recalibrate(bundle, val.logits, val.targets, settings.calibration, settings.prevalence)
    if settings.triage_goal is not None:
        bundle = _tune_triage(config, bundle, val)
    bundle = with_scores(bundle, val.logits)
    tags = {"chestai.stage": "derive", "chestai.snapshot": snapshot.snapshot_id}
    registry.connect()
    with mlflow.start_run(run_name=f"derive {made_of}", tags=tags) as active:
        mlflow.log_params({f"derive.{name}": value for name, value in config.plain()["derive"].items()})
        provenance = {**bundle.card.provenance, "derived_from": [model.version for model in models]}
        update = {"run_id": active.info.run_id, "snapshot": snapshot.snapshot_id, "provenance": provenance}
        version = register(replace(bundle, card=bundle.card.model_copy(update=update)), registry)
    facts = {
        "headline": f"{config.tracking.model} version {version} from {made_of}",
        "version": version,
        "networks": len(bundle.card.members),
        "views": ", ".join(["plain", *bundle.card.tta]),
        "calibration": settings.calibration + (" moved to the site's prevalence" if settings.prevalence else ""),
        "triage": bundle.card.triage,
        "next": f"python -m pipelines.evaluate lake={config.lake}",
    }
    summary = Summary("derive", len(val.targets), "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def _tune_triage(config: Config, bundle: Bundle, val: LabelledPredictions) -> Bundle:
    """The bundle with its triage rule tuned on val."""
    assert config.derive.triage_goal is not None
    probabilities = bundle.calibration.apply(val.logits)
    try:
        goal = config.derive.triage_goal.goal()
        rule = tune(bundle.triage, probabilities, val.targets, bundle.card.findings, goal)
    except ValueError as error:
        raise UserError(f"derive.triage_goal: {error}") from error
    return replace(bundle, card=bundle.card.model_copy(update={"triage": rule.to_dict()}))


if __name__ == "__main__":
    stage_command("pipelines.derive", run)
