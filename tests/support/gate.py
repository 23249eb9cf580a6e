"""Made-up models for tests of the promotion gate."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from chestai import calibration
from chestai.cli.console import Screen
from chestai.clock import now
from chestai.config.schema import Config
from chestai.evaluation.evidence import EvaluatedModel, Evidence, Latency
from chestai.evaluation.promotion_gate import CHAMPION_COMPARISON as AGAINST
from chestai.evaluation.promotion_gate import run_checks
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.metrics.bootstrap import Bootstrap
from chestai.metrics.comparison import compare_auroc
from chestai.metrics.localisation import BoxedCases, BoxMatch, LocalisationReport, measure_localisation
from chestai.metrics.thresholds import youden_threshold
from chestai.model.registry import Registry
from chestai.triage.rule import TriageRule
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.measure import EvaluationInput, ProbeReports, measure_evidence
from pipelines.evaluation.promotion import ChampionComparison, GateVerdict, apply_gate
from pipelines.inference.labelled_predictions import LabelledPredictions

FINDINGS = ("Effusion", "Mass", "Pneumothorax")
IMAGES = 1600


def predict(skill: float, temper: float = 1.0, worse_for: str = "") -> LabelledPredictions:
    """A model's logits; images, labels and noise are always the same, two images a patient.

    Args:
        skill: how strongly a finding moves the logits.
        temper: factor on the correct logits; above 1 the model is overconfident.
        worse_for: a sex for which the model is blind.
    """
    draws = np.random.default_rng(0)
    targets = (draws.random((IMAGES, len(FINDINGS))) < (0.3, 0.2, 0.25)).astype(np.float32)
    noise = draws.normal(size=targets.shape)
    sex = np.repeat(draws.choice(["F", "M"], IMAGES // 2), 2)
    blind = (sex == worse_for)[:, None]
    evidence = noise + np.where(blind, 0.0, skill) * targets
    # By Bayes: the log odds of unit-variance Gaussians `skill` apart, at these prevalences.
    prior = np.log([0.3 / 0.7, 0.2 / 0.8, 0.25 / 0.75])
    logits = (prior + np.where(blind, 0.0, skill * evidence - skill**2 / 2)) * temper
    if worse_for:  # for them it ranks by noise alone
        logits += np.where(blind, 0.3 * noise, 0.0)
    rows = pa.table(
        {
            "image_id": [f"i{at:04d}" for at in range(IMAGES)],
            "patient_id": [f"p{at // 2}" for at in range(IMAGES)],
            "source": ["made"] * IMAGES,
            "path": [""] * IMAGES,
            "age_years": pa.array(draws.uniform(20, 80, IMAGES), pa.float32()),
            "sex": sex.tolist(),
            "view": ["PA"] * IMAGES,
            "split": ["test"] * IMAGES,
            "height": [64] * IMAGES,
            "width": [64] * IMAGES,
        }
    )
    return LabelledPredictions(FINDINGS, logits, targets, rows, {})


SNAPSHOT = Snapshot("made", now(), "made", "", FINDINGS, {}, {}, {}, (1.0,) * 3, ((0,) * 3,) * 3, 0.5, 0.25, True)


def make_evidence(
    registry: Registry,
    settings: Config,
    test: LabelledPredictions,
    champion: LabelledPredictions | None,
    hits: float = 0.8,
    ms: float = 20,
    grid: int = 7,
) -> Evidence:
    """The evidence for a model with these test predictions, half of which also serve as val."""
    uncalibrated = calibration.uncalibrated(len(FINDINGS))
    val = test.take(np.arange(0, IMAGES, 2))
    probabilities = uncalibrated.apply(val.logits)
    inputs = EvaluationInput(
        subject=EvaluatedModel("made", 1, FINDINGS, None, True),
        calibration=uncalibrated,
        pos_weight=np.ones(len(FINDINGS)),
        triage_rule=TriageRule({"Pneumothorax": 1.0, "Mass": 0.85}),
        operating_points=np.array(
            [youden_threshold(val.targets[:, at], probabilities[:, at]) for at in range(len(FINDINGS))]
        ),
        val=val,
        evaluated=test,
        confidence=None,
    )
    comparisons = None
    if champion is not None:
        theirs, ours = uncalibrated.apply(champion.logits), {AGAINST: uncalibrated.apply(test.logits)}
        comparisons = compare_auroc(test.targets, theirs, ours, test.patients, Bootstrap(300))
    screen = Screen(Console(file=io.StringIO()))
    run = EvaluationRun(settings, screen, Lake(settings.lake), SNAPSHOT, registry, started=0.0)
    probes = ProbeReports(make_localisation(hits, grid), None, None, Latency(ms, 2 * ms, "a bench"), {})
    return measure_evidence(run, inputs, probes, comparisons)


def make_localisation(hits: float, grid: int) -> LocalisationReport:
    """200 boxes: the model points into a share `hits` of them, the centre prior into half."""
    cases = 200
    matches = {
        "model": [BoxMatch(at < hits * cases, 0.3, 0.3) for at in range(cases)],
        "centre prior": [BoxMatch(at % 2 == 0, 0.2, 0.2) for at in range(cases)],
    }
    patients = [f"p{at}" for at in range(cases)]
    boxed = BoxedCases(matches, ["Mass"] * cases, patients, [True] * cases)
    return measure_localisation(boxed, "made", grid, Bootstrap(100))


def judge(
    registry: Registry,
    settings: Config,
    test: LabelledPredictions,
    version: int = 2,
    champion: LabelledPredictions | None = None,
    **options: Any,
) -> GateVerdict:
    """Measure a model and apply the gate to it, against the champion's predictions if there are any."""
    evidence = make_evidence(registry, settings, test, champion, **options)
    comparison = ChampionComparison(registry.champion(), evidence.comparisons)
    return apply_gate(registry, version, run_checks(evidence, settings.gate), comparison)
