"""Evaluate: measure on test, let only a better model through.

Features: the model that training registered last is measured on test with intervals from a patient-clustered bootstrap;
the alias `champion` moves only if this candidate is better than the champion on the same test images.
`evaluate.model=champion|VERSION` measures a registered model and changes nothing.

Raises UserError: no build, no trained model, an empty split.
"""

import csv
import io
import time
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
from numpy.typing import NDArray

from chestai.bundle import Bundle
from chestai.command import Summary, as_command
from chestai.config import Config
from chestai.errors import UserError
from chestai.lake import Lake, Snapshot
from chestai.metrics.report import Report
from chestai.metrics.report import evaluate as measure
from chestai.registry import CHAMPION, Registered, Registry
from chestai.screen import Screen
from pipelines.cluster import connected
from pipelines.inference import infer

CANDIDATE = "candidate"


@dataclass(frozen=True)
class Answers:
    """A network's answers over a split: logits (N, F), targets (N, F) with NaN, patient IDs (N,)."""

    logits: NDArray[np.float32]
    targets: NDArray[np.float32]
    patients: NDArray[np.str_]


def run(config: Config, screen: Screen) -> Summary:
    """Evaluate the candidate and gate it, or measure a registered version."""
    started = time.monotonic()
    lake = Lake(config.lake)
    snapshot = lake.snapshot()
    registry = Registry(config.tracking, lake)
    _check(config, snapshot)
    if config.evaluate.model == CANDIDATE:
        summary = _candidate(config, screen, lake, snapshot, registry, started)
    else:
        model = registry.load(config.evaluate.model)
        with connected(config.cluster):
            answers = _answers(config, screen, lake, snapshot, model.bundle, config.evaluate.split)
        report = _measure(config, model.bundle, answers)
        summary = _summary(config, snapshot, model, report, started, "measured, nothing changed")
    summary.save(lake)
    return summary


def _check(config: Config, snapshot: Snapshot) -> None:
    split = config.evaluate.split
    if snapshot.splits.get(split, {}).get("files", 0) == 0:
        raise UserError(f"snapshot {snapshot.snapshot_id} has no frontal {split} image with a file to measure")


def _candidate(
    config: Config, screen: Screen, lake: Lake, snapshot: Snapshot, registry: Registry, started: float
) -> Summary:
    runs = registry.finished_runs({"chestai.stage": "train", "chestai.snapshot": snapshot.snapshot_id})
    if not runs:
        raise UserError(
            f"no trained model of snapshot {snapshot.snapshot_id}: run `python -m pipelines.train lake={config.lake}`"
        )
    run_id = runs[0].info.run_id
    version = registry.version_of(run_id)
    if version is None:
        raise UserError(f"run {run_id} has no registered model: train again with force=true")
    last = lake.read_report("evaluate")
    if (
        last is not None
        and not config.force
        and last["facts"].get("done") == _done(config, snapshot, version, registry)
    ):
        told = "already evaluated: " + last["facts"]["headline"].removeprefix("already evaluated: ")
        facts = {**last["facts"], "headline": told}
        return Summary("evaluate", 0, "images", time.monotonic() - started, facts)
    with connected(config.cluster):
        model = registry.load(str(version))
        answers = _answers(config, screen, lake, snapshot, model.bundle, config.evaluate.split)
        report = _measure(config, model.bundle, answers)
        verdict = _gate(config, screen, lake, snapshot, registry, model, report)
    _log(registry, run_id, model, report, config.evaluate.split)
    summary = _summary(config, snapshot, model, report, started, verdict)
    summary.facts["done"] = _done(config, snapshot, model.version, registry)
    return summary


def _done(config: Config, snapshot: Snapshot, version: int, registry: Registry) -> dict[str, Any]:
    """What an evaluation and its verdict depend on: if it is the same, so is the answer."""
    settings = {name: getattr(config.evaluate, name) for name in ("split", "resamples", "seed")}
    return {**settings, "snapshot": snapshot.snapshot_id, "version": version, "champion": registry.champion()}


def _answers(config: Config, screen: Screen, lake: Lake, snapshot: Snapshot, bundle: Bundle, split: str) -> Answers:
    rows = lake.usable(snapshot, ["path", "patient_id", "split"])
    chosen = rows.filter(np.equal(rows["split"].to_numpy(), split))
    scored = infer(bundle, chosen.select(["image_id", "path"]), config.evaluate.batch_size, screen, "evaluate")
    place = {image_id: index for index, image_id in enumerate(chosen["image_id"].to_pylist())}
    order = [place[image_id] for image_id in scored.image_ids]
    return Answers(
        scored.logits,
        np.array(chosen["targets"].to_pylist(), np.float32)[order],
        np.array(chosen["patient_id"].to_pylist())[order],
    )


def _measure(config: Config, bundle: Bundle, answers: Answers) -> Report:
    probabilities = bundle.calibration.apply(answers.logits)
    settings = config.evaluate
    return measure(
        answers.targets,
        probabilities,
        answers.patients,
        bundle.card.findings,
        settings.resamples,
        settings.seed,
    )


def _gate(
    config: Config,
    screen: Screen,
    lake: Lake,
    snapshot: Snapshot,
    registry: Registry,
    candidate: Registered,
    report: Report,
) -> str:
    """Move `champion` to the candidate if it is better on the same images; say what was decided and why."""
    holder = registry.champion()
    if holder == candidate.version:
        return f"version {holder} is the champion"
    if holder is None:
        registry.promote(candidate.version)
        return f"version {candidate.version} is the first champion"
    champion = registry.load(CHAMPION)
    if champion.bundle.card.findings != candidate.bundle.card.findings:
        return f"champion stays version {holder}: it answers other findings, so the two cannot be compared"
    answers = _answers(config, screen, lake, snapshot, champion.bundle, config.evaluate.split)
    ours = report.macro_auroc.value
    theirs = _measure(config, champion.bundle, answers).macro_auroc.value
    if not ours > theirs:
        return f"champion stays version {holder}: test macro-AUROC {theirs:.4f}, candidate {ours:.4f}"
    registry.promote(candidate.version)
    return f"version {candidate.version} is the new champion: {ours:.4f} against {theirs:.4f} of version {holder}"


def _log(registry: Registry, run_id: str, model: Registered, report: Report, split: str) -> None:
    """The numbers go to the training run and the registry version, so that they travel with the model."""
    client = registry.connect()
    macro = report.macro_auroc
    values = {"macro_auroc": macro.value, "macro_auprc": report.macro_auprc.value}
    values |= {f"auroc_{row.finding}": row.auroc.value for row in report.findings}
    with mlflow.start_run(run_id=run_id):
        mlflow.log_metrics({f"{split}_{name}": value for name, value in values.items() if np.isfinite(value)})
        mlflow.log_dict(report.to_dict(), f"evaluation/{split}.json")
        mlflow.log_text(_per_finding_csv(model.bundle, report), f"evaluation/{split}.csv")
    interval = f"{macro.value:.4f} [{macro.low:.4f}, {macro.high:.4f}]"
    client.set_model_version_tag(model.name, str(model.version), f"{split}_macro_auroc", interval)


def _per_finding_csv(bundle: Bundle, report: Report) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        [
            "finding",
            "positives",
            "negatives",
            "auroc",
            "auroc_low",
            "auroc_high",
            "auprc",
            "auprc_low",
            "auprc_high",
            "threshold",
        ]
    )
    for row in report.findings:
        numbers = [
            row.auroc.value,
            row.auroc.low,
            row.auroc.high,
            row.auprc.value,
            row.auprc.low,
            row.auprc.high,
        ]
        threshold = bundle.card.thresholds[row.finding]
        writer.writerow(
            [row.finding, row.positives, row.negatives, *(f"{number:.4f}" for number in numbers), threshold]
        )
    return text.getvalue()


def _summary(
    config: Config, snapshot: Snapshot, model: Registered, report: Report, started: float, verdict: str
) -> Summary:
    macro = report.macro_auroc
    split = config.evaluate.split
    interval = f"{macro.value:.3f} [{macro.low:.3f}, {macro.high:.3f}]"
    facts: dict[str, Any] = {
        "headline": f"{split} macro-AUROC {interval}; {verdict}",
        "done": None,
        "model": f"{model.name} version {model.version}",
        "version": model.version,
        "verdict": verdict,
        "snapshot": snapshot.snapshot_id,
        "split": split,
        "macro_auroc": interval,
        "auroc": {row.finding: row.auroc.value for row in report.findings},
        "calibration_fallback": [
            finding
            for finding, fell_back in zip(
                model.bundle.card.findings, model.bundle.card.calibration["fallback"], strict=False
            )
            if fell_back
        ],
        "report": report.to_dict(),
    }
    return Summary("evaluate", report.images, "images", time.monotonic() - started, facts)


if __name__ == "__main__":
    as_command("pipelines.evaluate", run)
