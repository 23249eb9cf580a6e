"""Evaluate: the evidence for a model, and the gate that only a better one passes.

Features: any registered version, several at once (an ensemble), with test-time augmentation, or somebody else's
predictions from a CSV, on any split; AUROC and AUPRC with patient-clustered intervals, operating points chosen on val,
calibration, subgroups, heat maps against drawn boxes, corrupted images, triage and a simulated reading queue; a model
card as HTML and Markdown with its tables and plots, in the lake, in MLflow and at the registry version. A model is
never tested on patients that it was trained on. `model=candidate`, the default, is what was registered last: it becomes
`champion` if the gate lets it.

Raises UserError: no build, no such model, an empty split, patients in training and test, an unusable predictions file.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from chestai import calibration
from chestai.cli.console import Screen
from chestai.cli.main import stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.evaluation.evidence import EvaluatedModel, Evidence
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.metrics.thresholds import youden
from chestai.model.bundle import Bundle, assemble
from chestai.model.calibrate import recalibrate
from chestai.model.registry import RegisteredModel, Registry
from pipelines.cluster import ray_cluster
from pipelines.evaluation import leakage, report
from pipelines.evaluation.external_predictions import read_predictions
from pipelines.evaluation.measure import EvaluationInput, ProbeReports, measure_evidence
from pipelines.evaluation.promotion import ChampionComparison, GateVerdict, apply_gate, compare_with_champion
from pipelines.evaluation.run_probes import report_probes, run_probes

CANDIDATE = "candidate"
STAGES = ("train", "derive")  # whose runs register models


def run(config: Config, screen: Screen) -> Summary:
    """Evaluate the candidate and gate it, or measure something else and change nothing."""
    started = time.monotonic()
    lake = Lake(config.lake)
    snapshot = lake.snapshot()
    registry = Registry(config.tracking, lake)
    if config.evaluate.predictions is not None:
        summary = _outside(config, screen, lake, snapshot, registry, started)
    else:
        _check(config, snapshot)
        if config.evaluate.model == CANDIDATE:
            summary = _candidate(config, screen, lake, snapshot, registry, started)
        else:
            summary = _registered(config, screen, lake, snapshot, registry, started)
    summary.save(lake)
    return summary


def _check(config: Config, snapshot: Snapshot) -> None:
    split = config.evaluate.split
    if snapshot.splits.get(split, {}).get("files", 0) == 0:
        raise UserError(f"snapshot {snapshot.snapshot_id} has no frontal {split} image with a file to measure")


def _candidate(
    config: Config, screen: Screen, lake: Lake, snapshot: Snapshot, registry: Registry, started: float
) -> Summary:
    """What was registered last for this snapshot: measured, judged, and promoted if it may be."""
    if config.evaluate.tta:
        raise UserError(
            "tta= needs model=VERSION: a candidate is judged as it is registered; `python -m pipelines.derive` makes "
            "one with these views"
        )
    if config.evaluate.split != "test":
        raise UserError(f"split={config.evaluate.split} needs model=VERSION: a candidate is judged on test alone")
    found = [
        run
        for stage in STAGES
        for run in registry.finished_runs({"chestai.stage": stage, "chestai.snapshot": snapshot.snapshot_id})
    ]
    if not found:
        raise UserError(
            f"no trained model of snapshot {snapshot.snapshot_id}: run `python -m pipelines.train lake={config.lake}`"
        )
    run_id = max(found, key=lambda run: run.info.start_time).info.run_id
    version = registry.version_of(run_id)
    if version is None:
        raise UserError(f"run {run_id} has no registered model: train again with force=true")
    last = lake.read_report("evaluate")
    done = _done(config, snapshot, version, registry)
    if last is not None and not config.force and last["facts"].get("done") == done:
        told = "already evaluated: " + last["facts"]["headline"].removeprefix("already evaluated: ")
        return Summary("evaluate", 0, "images", time.monotonic() - started, {**last["facts"], "headline": told})
    model = registry.load(str(version))
    evidence, rivals = _evidence(config, screen, lake, snapshot, model.bundle, [model], registry)
    verdict = apply_gate(config, registry, version, evidence, rivals)
    made = report.render_files(evidence, verdict.checks)
    page = report.save_files(lake, f"version-{version}-{evidence.data.split}", made)
    report.log_to_mlflow(registry, run_id, version, evidence, made)
    summary = _summary(evidence, verdict, page, started)
    summary.facts["done"] = _done(config, snapshot, version, registry)
    return summary


def _done(config: Config, snapshot: Snapshot, version: int, registry: Registry) -> dict[str, Any]:
    """What an evaluation and its verdict depend on: if it is the same, so is the answer."""
    plain = config.plain()
    settings = {name: plain[name] for name in ("evaluate", "gate", "queue")}
    rolled_back = registry.rolled_back(version)
    facts = {"snapshot": snapshot.snapshot_id, "version": version, "champion": registry.champion()}
    return {**settings, **facts, "rolled_back": rolled_back}


def _registered(
    config: Config, screen: Screen, lake: Lake, snapshot: Snapshot, registry: Registry, started: float
) -> Summary:
    """Versions by number, alone or together: measured, nothing else."""
    models = registry.load_all(config.evaluate.model)
    bundle = assemble([model.bundle for model in models], config.evaluate.tta)
    evidence, _ = _evidence(config, screen, lake, snapshot, bundle, models, None)
    made = report.render_files(evidence)
    alone = evidence.subject.version
    names = ["version", "+".join(str(model.version) for model in models), *config.evaluate.tta, evidence.data.split]
    page = report.save_files(lake, "-".join(names), made)
    if alone is not None:
        run_id = registry.connect().get_model_version(models[0].name, str(alone)).run_id
        report.log_to_mlflow(registry, str(run_id), alone, evidence, made)
    else:
        report.log_to_mlflow(registry, _new_run(registry, evidence.subject.title, snapshot), None, evidence, made)
    return _summary(evidence, GateVerdict("measured, nothing changed", ()), page, started)


def _evidence(
    config: Config,
    screen: Screen,
    lake: Lake,
    snapshot: Snapshot,
    bundle: Bundle,
    models: list[RegisteredModel],
    gate: Registry | None,
) -> tuple[Evidence, ChampionComparison]:
    """Measure a bundle made of registered models; beside the champion where it is to be gated."""
    settings, split = config.evaluate, config.evaluate.split
    versions = "+".join(str(model.version) for model in models)
    title = " with ".join([f"{models[0].name} version {versions}", *filter(None, [", ".join(settings.tta)])])
    splits = sorted({split, "val"})
    leakage.check_leakage(bundle, title, lake, snapshot, splits)
    with ray_cluster(config.cluster):
        examined = run_probes(config, screen, lake, snapshot, bundle, split, ["val"])
        val, measured = examined.answers.of("val"), examined.answers.of(split)
        if len(models) > 1 or settings.tta:
            bundle = recalibrate(bundle, val.logits, val.targets)
        rivals = ChampionComparison(None)
        if gate is not None:
            rivals = compare_with_champion(
                config, screen, lake, snapshot, gate, replace(models[0], bundle=bundle), measured
            )
        probed = report_probes(config, bundle, examined, measured, rivals.compared)
    card = bundle.card
    subject = EvaluatedModel(
        title=title,
        version=models[0].version if len(models) == 1 and not settings.tta else None,
        findings=card.findings,
        card=card.model_dump(mode="json"),
        split_known=card.split_known,
        notes=_notes(split),
    )
    points = [card.thresholds[finding] for finding in card.findings]
    whole = EvaluationInput(
        subject=subject,
        in_force=bundle.calibration,
        pos_weight=np.array(card.provenance.get("pos_weight", np.ones(len(card.findings))), np.float64),
        rule=bundle.triage,
        decision=np.array([np.nan if point is None else point for point in points], np.float64),
        val=val,
        split=measured,
    )
    return measure_evidence(config, snapshot, whole, probed, screen), rivals


def _outside(
    config: Config, screen: Screen, lake: Lake, snapshot: Snapshot, registry: Registry, started: float
) -> Summary:
    """Predictions from a file: measured like a model, but for what needs a network."""
    settings, split = config.evaluate, config.evaluate.split
    assert settings.predictions is not None
    answers, notes = read_predictions(settings.predictions, settings.predictions_prefix, lake, snapshot)
    val, measured = answers.of("val"), answers.of(split)
    if not len(measured.targets):
        raise UserError(f"{settings.predictions} has no prediction for a {split} image: split= names another")
    in_force = calibration.uncalibrated(len(answers.findings))
    own = in_force.apply(val.logits)
    weighted = any(finding in config.triage.weights for finding in answers.findings)
    name = Path(settings.predictions).name
    whole = EvaluationInput(
        subject=EvaluatedModel(name, None, answers.findings, None, False, (*notes, *_notes(split))),
        in_force=in_force,
        pos_weight=np.ones(len(answers.findings)),
        rule=config.triage.rule().within(answers.findings) if weighted else None,
        decision=np.array([youden(val.targets[:, at], own[:, at]) for at in range(len(answers.findings))]),
        val=val,
        split=measured,
    )
    reason = "predictions from a file: there is no network to ask"
    probed = ProbeReports(None, None, None, None, dict.fromkeys(("localisation", "robustness", "latency"), reason))
    evidence = measure_evidence(config, snapshot, whole, probed, screen)
    made = report.render_files(evidence)
    page = report.save_files(lake, f"predictions-{Path(name).stem}-{split}", made)
    report.log_to_mlflow(registry, _new_run(registry, f"evaluate {name}", snapshot), None, evidence, made)
    return _summary(evidence, GateVerdict("measured, nothing changed", ()), page, started)


def _notes(split: str) -> tuple[str, ...]:
    """What limits what the numbers mean, by the split that they come from."""
    if split == "val":
        return ("Calibration, operating points and the best epoch were chosen on these very images.",)
    if split == "train":
        return ("These are the images that a model of this corpus learns from, so the numbers flatter it.",)
    return ()


def _new_run(registry: Registry, name: str, snapshot: Snapshot) -> str:
    registry.connect()
    with mlflow.start_run(run_name=name, tags={"chestai.stage": "evaluate", "chestai.snapshot": snapshot.snapshot_id}):
        active = mlflow.active_run()
        assert active is not None
        return str(active.info.run_id)


def _summary(evidence: Evidence, verdict: GateVerdict, page: str, started: float) -> Summary:
    report, split = evidence.report, evidence.data.split
    macro = report.macro_auroc
    interval = f"{macro.value:.3f} [{macro.low:.3f}, {macro.high:.3f}]"
    facts: dict[str, Any] = {
        "headline": f"{split} macro-AUROC {interval}; {verdict.said}",
        "done": None,
        "model": evidence.subject.title,
        "version": evidence.subject.version,
        "verdict": verdict.said,
        "gate": {check.name: check.said for check in verdict.checks},
        "snapshot": evidence.data.snapshot,
        "split": split,
        "macro_auroc": interval,
        "auroc": {row.finding: row.auroc.value for row in report.findings},
        "notes": " ".join(evidence.subject.notes) or "none",
        "split_known": evidence.subject.split_known,
        "model_card": page,
        "report": report.to_dict(),
    }
    return Summary("evaluate", report.images, "images", time.monotonic() - started, facts)


if __name__ == "__main__":
    stage_command("pipelines.evaluate", run)
