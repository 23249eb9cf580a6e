"""Evaluate: collects the evidence for a model; the promotion gate then decides whether it becomes `champion`.

It measures a registered version, several as an ensemble (`model=3+5`), with test-time augmentation (`tta=[flip]`), or
predictions from a CSV (`predictions=FILE`), on any split. The evidence: AUROC and AUPRC with patient-clustered
intervals, operating points chosen on val, calibration, subgroups, heatmaps against drawn boxes, corrupted images,
triage and a simulated reading queue, search by image and by text. It is written as a model card (HTML and Markdown)
with tables and plots to the lake, to MLflow and to the registry version. A model is never tested on patients that it
was trained on.

`model=champion across=[LAKE, ...]` measures it on the test splits of other lakes: what ranking loses there, and what a
calibration to their prevalence gives back. `reference=` compares the model with another one on the same images,
`labels=LAKE` measures it by another source's labels too. Each look at test is written down, and the card counts them.

The default, `model=candidate`, is the model registered last. Only the candidate passes through the gate; every other
evaluation measures and changes nothing.

Raises UserError: no build, no such model, an empty split, patients in both training and test, an unusable predictions
file.
"""

from pathlib import Path

import numpy as np

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.evaluation.evidence import EvaluatedModel, Evidence
from chestai.evaluation.promotion_gate import run_checks
from chestai.model.bundle import Bundle, assemble
from chestai.model.calibrate import recalibrate
from chestai.model.pretrained.corpora import warn_of_overlap
from chestai.model.registry import RegisteredModel
from pipelines.cluster import ray_cluster
from pipelines.evaluation import report
from pipelines.evaluation.across import evaluate_across
from pipelines.evaluation.candidate import CANDIDATE, find_candidate, find_earlier_summary, list_inputs
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.external_predictions import prepare_predictions
from pipelines.evaluation.leakage import check_leakage
from pipelines.evaluation.measure import PROBED, EvaluationInput, ProbeReports, measure_evidence
from pipelines.evaluation.openings import open_split
from pipelines.evaluation.promotion import ChampionComparison, GateVerdict, apply_gate, compare_with_champion
from pipelines.evaluation.reference import compare_with_reference
from pipelines.evaluation.run_probes import report_probes, run_probes
from pipelines.inference.labelled_predictions import LabelledPredictions

NOTHING_CHANGED = GateVerdict("measured, nothing changed")


def run(config: Config, screen: Screen) -> Summary:
    """Evaluate and gate the candidate, or measure another model or a predictions file."""
    evaluation = EvaluationRun.start(config, screen)
    if config.evaluate.across:
        summary = evaluate_across(evaluation)
    elif config.evaluate.predictions is not None:
        summary = _evaluate_file(evaluation, config.evaluate.predictions)
    elif config.evaluate.model == CANDIDATE:
        summary = _evaluate_candidate(evaluation)
    else:
        summary = _evaluate_versions(evaluation)
    summary.save(evaluation.lake)
    return summary


def _evaluate_candidate(run: EvaluationRun) -> Summary:
    """Measure the model registered last for this snapshot, and promote it if it passes the gate."""
    run.check_split()
    candidate = find_candidate(run)
    earlier = find_earlier_summary(run, candidate)
    if earlier is not None:
        return earlier
    evidence, comparison = _measure_models(run, [run.registry.load(str(candidate.version))], gated=True)
    checks = run_checks(evidence, run.config.gate)
    verdict = apply_gate(run.registry, candidate.version, checks, comparison)
    files = report.render_files(evidence, checks)
    card = report.save_files(run.lake, f"version-{candidate.version}-{run.split}", files)
    report.log_to_mlflow(run.registry, candidate.run_id, candidate.version, evidence, files)
    return report.summarise(run, evidence, verdict, card, list_inputs(run, candidate))


def _evaluate_versions(run: EvaluationRun) -> Summary:
    """Measure registered versions, one alone or several as an ensemble."""
    run.check_split()
    models = run.registry.load_all(run.config.evaluate.model)
    evidence, _ = _measure_models(run, models, gated=False)
    files = report.render_files(evidence)
    versions = "+".join(str(model.version) for model in models)
    card = report.save_files(run.lake, "-".join(["version", versions, *run.config.evaluate.tta, run.split]), files)
    version = evidence.subject.version
    if version is None:
        run_id = report.start_mlflow_run(run, evidence.subject.title)
    else:
        run_id = str(run.registry.connect().get_model_version(models[0].name, str(version)).run_id)
    report.log_to_mlflow(run.registry, run_id, version, evidence, files)
    return report.summarise(run, evidence, NOTHING_CHANGED, card)


def _evaluate_file(run: EvaluationRun, path: str) -> Summary:
    """Measure predictions from a file, except for what needs the network."""
    inputs = prepare_predictions(run, path)
    reason = "these are predictions from a file, without a network"
    probes = ProbeReports(None, None, None, None, dict.fromkeys(PROBED, reason))
    evidence = measure_evidence(run, inputs, probes, compare_with_reference(run, inputs.evaluated) or None)
    files = report.render_files(evidence)
    card = report.save_files(run.lake, f"predictions-{Path(path).stem}-{run.split}", files)
    run_id = report.start_mlflow_run(run, f"evaluate {evidence.subject.title}")
    report.log_to_mlflow(run.registry, run_id, None, evidence, files)
    return report.summarise(run, evidence, NOTHING_CHANGED, card)


def _measure_models(
    run: EvaluationRun, models: list[RegisteredModel], gated: bool
) -> tuple[Evidence, ChampionComparison]:
    """Measure a registered model or an ensemble, and compare it with the champion if it is to be gated."""
    tta = run.config.evaluate.tta
    bundle = assemble([model.bundle for model in models], tta)
    title = f"{models[0].name} version {'+'.join(str(model.version) for model in models)}"
    title += f" with {', '.join(tta)}" if tta else ""
    check_leakage(bundle, title, run.lake, run.snapshot, sorted({run.split, "val"}))
    openings = open_split(run.lake, run.snapshot, run.split, title)
    with ray_cluster(run.config.cluster):
        results = run_probes(run, bundle, ["val"])
        val, evaluated = results.predictions.select_split("val"), results.predictions.select_split(run.split)
        if len(models) > 1 or tta:
            bundle = recalibrate(bundle, val.logits, val.targets, val.patients)
        comparison = compare_with_champion(run, models[0], evaluated) if gated else ChampionComparison(None)
        probes = report_probes(run, bundle, results, evaluated)
    subject = EvaluatedModel(
        title=title,
        version=models[0].version if len(models) == 1 and not tta else None,
        findings=bundle.card.findings,
        card=bundle.card.model_dump(mode="json"),
        split_known=bundle.card.split_known,
        notes=report.list_caveats(run.split, warn_of_overlap(bundle.card.model_dump(), run.snapshot.source)),
        openings=openings,
    )
    inputs = _build_inputs(bundle, subject, val, evaluated)
    comparisons = {**(comparison.comparisons or {}), **compare_with_reference(run, evaluated)}
    return measure_evidence(run, inputs, probes, comparisons or None), comparison


def _build_inputs(
    bundle: Bundle, subject: EvaluatedModel, val: LabelledPredictions, evaluated: LabelledPredictions
) -> EvaluationInput:
    card = bundle.card
    thresholds = [card.thresholds[finding] for finding in card.findings]
    return EvaluationInput(
        subject=subject,
        calibration=bundle.calibration,
        pos_weight=np.array(card.provenance.get("pos_weight", np.ones(len(card.findings))), np.float64),
        triage_rule=bundle.triage,
        operating_points=np.array([np.nan if value is None else value for value in thresholds], np.float64),
        val=val,
        evaluated=evaluated,
        confidence=bundle.confidence,
    )


if __name__ == "__main__":
    run_stage_command("pipelines.evaluate", run)
