"""Derive: registers a new version made from registered ones, without training.

It can combine several versions into an ensemble (`model=3+5`), add test-time augmentation (`tta=[rotate,zoom]`), change
the calibration, shift it to a site's prevalence, and tune triage weights and bounds on val for a stated goal. The
input gate and the drift reference come from the (first) model, except for the reference scores, which come from val.
The result is a model like any other: `pipelines.evaluate` judges it next, and scoring and the endpoint can use it.

Raises UserError: no such version, members that do not fit together, patients in both training and val, a goal out of
reach.
"""

import time
from dataclasses import replace

import mlflow

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config.evaluation import TriageGoal
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle, assemble
from chestai.model.calibrate import recalibrate
from chestai.model.registry import Registry
from chestai.triage.tuning import tune_rule
from pipelines.cluster import ray_cluster
from pipelines.evaluation import leakage
from pipelines.inference.labelled_predictions import LabelledPredictions, predict_labelled
from pipelines.training.monitors import add_score_reference
from pipelines.training.register import register


def run(config: Config, screen: Screen) -> Summary:
    """Assemble the bundle, calibrate and tune it on val of the newest snapshot, and register it."""
    started = time.monotonic()
    lake = Lake(config.lake)
    snapshot = lake.find_snapshot()
    registry = Registry(config.tracking, lake)
    settings = config.derive
    models = registry.load_all(settings.model)
    bundle = assemble([model.bundle for model in models], settings.tta)
    parents = "+".join(str(model.version) for model in models)
    title = f"{config.tracking.model} version {parents}"
    unknown = sorted(set(settings.prevalence or {}) - set(bundle.card.findings))
    if unknown:
        raise UserError(f"derive.prevalence.{unknown[0]}: {title} has no such finding")
    if snapshot.splits.get("val", {}).get("files", 0) == 0:
        raise UserError(f"snapshot {snapshot.snapshot_id} has no frontal val image with a file to calibrate on")
    leakage.check_leakage(bundle, title, lake, snapshot, ["val"])
    with ray_cluster(config.cluster):
        val = predict_labelled(bundle, lake, snapshot, ["val"], config.evaluate.batch_size, screen)
    bundle = recalibrate(bundle, val.logits, val.targets, val.patients, settings.calibration, settings.prevalence)
    if settings.triage_goal is not None:
        bundle = _tune_triage(bundle, val, settings.triage_goal)
    bundle = add_score_reference(bundle, val.logits)
    tags = {"chestai.stage": "derive", "chestai.snapshot": snapshot.snapshot_id}
    registry.connect()
    with mlflow.start_run(run_name=f"derive {parents}", tags=tags) as active:
        mlflow.log_params({f"derive.{name}": value for name, value in config.plain()["derive"].items()})
        provenance = {**bundle.card.provenance, "derived_from": [model.version for model in models]}
        update = {"run_id": active.info.run_id, "snapshot": snapshot.snapshot_id, "provenance": provenance}
        version = register(replace(bundle, card=bundle.card.model_copy(update=update)), registry)
    facts = {
        "headline": f"{config.tracking.model} version {version} from {parents}",
        "version": version,
        "networks": len(bundle.card.members),
        "views": ", ".join(["plain", *bundle.card.tta]),
        "calibration": settings.calibration + (" shifted to the site's prevalence" if settings.prevalence else ""),
        "triage": bundle.card.triage,
        "next": f"python -m pipelines.evaluate lake={config.lake}",
    }
    summary = Summary("derive", len(val.targets), "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def _tune_triage(bundle: Bundle, val: LabelledPredictions, settings: TriageGoal) -> Bundle:
    """The bundle with a triage rule tuned on val."""
    probabilities = bundle.calibration.apply(val.logits)
    try:
        rule = tune_rule(bundle.triage, probabilities, val.targets, bundle.card.findings, settings.to_target())
    except ValueError as error:
        raise UserError(f"derive.triage_goal: {error}") from error
    return replace(bundle, card=bundle.card.model_copy(update={"triage": rule.to_dict()}))


if __name__ == "__main__":
    run_stage_command("pipelines.derive", run)
