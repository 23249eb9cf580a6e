"""The gate: who may become champion, and what is said to those who may not. Real MLflow, made-up answers."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from rich.console import Console

from chestai.calibration import uncalibrated
from chestai.cli.console import Screen
from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.evaluation.evidence import EvaluatedModel, Evidence, Latency
from chestai.evaluation.promotion_gate import CHAMPION as AGAINST
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.metrics.comparison import compare
from chestai.metrics.localisation import BoxMatch, localisation
from chestai.metrics.thresholds import youden
from chestai.model.registry import PASSED, Registry
from chestai.triage.rule import TriageRule
from pipelines import promote
from pipelines.evaluation.measure import EvaluationInput, ProbeReports, measure_evidence
from pipelines.evaluation.promotion import ChampionComparison, GateVerdict, apply_gate
from pipelines.inference.labelled_predictions import LabelledPredictions
from tests.support.chain import go

FINDINGS = ("Effusion", "Mass", "Pneumothorax")
IMAGES = 1600


def answers(skill: float, temper: float = 1.0, worse_for: str = "") -> LabelledPredictions:
    """Logits of a model over always the same images, labels and noise; two images a patient.

    skill: how far findings move the evidence. temper: what the right logits are multiplied by; above 1, it is too sure
    of itself. worse_for: a sex to which the model is blind.
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
    if worse_for:  # it does rank them, but the wrong way to be of use: noise alone
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


def measured(
    settings: Config,
    test: LabelledPredictions,
    champion: LabelledPredictions | None,
    hits: float = 0.8,
    ms: float = 20,
    grid: int = 7,
) -> Evidence:
    """The evidence of a model with these test answers, whose val answers are of the same kind."""
    own = uncalibrated(len(FINDINGS))
    val = test.chosen(np.arange(0, IMAGES, 2))
    probabilities = own.apply(val.logits)
    points = [youden(val.targets[:, at], probabilities[:, at]) for at in range(len(FINDINGS))]
    whole = EvaluationInput(
        subject=EvaluatedModel("made", 1, FINDINGS, None, True),
        in_force=own,
        pos_weight=np.ones(len(FINDINGS)),
        rule=TriageRule({"Pneumothorax": 1.0, "Mass": 0.85}),
        decision=np.array(points),
        val=val,
        split=test,
    )
    compared = None
    if champion is not None:
        theirs, ours = own.apply(champion.logits), {AGAINST: own.apply(test.logits)}
        compared = compare(test.targets, theirs, ours, test.patients, 300, 0)
    cases = 200
    located = {
        "model": [BoxMatch(at < hits * cases, 0.3, 0.3) for at in range(cases)],
        "centre prior": [BoxMatch(at % 2 == 0, 0.2, 0.2) for at in range(cases)],
    }
    found = localisation(
        located, ["Mass"] * cases, [f"p{at}" for at in range(cases)], [True] * cases, "made", grid, 100
    )
    probed = ProbeReports(found, None, Latency(ms, 2 * ms, "a bench"), compared, {})
    return measure_evidence(settings, SNAPSHOT, whole, probed, Screen(Console(file=io.StringIO())))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One place for the databases of all tests, which takes seconds to make."""
    return tmp_path_factory.mktemp("gate") / "lake"


@pytest.fixture
def settings(lake: Path, tmp_path: Path) -> Config:
    """Each test has a registered model of its own."""
    return conf.load(
        ["cluster=laptop", f"lake={lake}", f"tracking.model={tmp_path.name}", "evaluate.resamples=300", "queue.runs=2"]
    )


@pytest.fixture
def registry(settings: Config) -> Registry:
    """A model with three registered versions, none of them champion."""
    registry = Registry(settings.tracking, Lake(settings.lake))
    client = registry.connect()
    client.create_registered_model(settings.tracking.model)
    with mlflow.start_run() as run:
        for _ in range(3):
            client.create_model_version(settings.tracking.model, f"runs:/{run.info.run_id}/model", run.info.run_id)
    return registry


def judged(
    registry: Registry,
    settings: Config,
    test: LabelledPredictions,
    version: int = 2,
    champion: LabelledPredictions | None = None,
    **more: Any,
) -> GateVerdict:
    evidence = measured(settings, test, champion, **more)
    return apply_gate(settings, registry, version, evidence, ChampionComparison(registry.champion(), evidence.against))


GOOD = 1.5


def test_the_first_model_is_judged_by_the_limits_alone(registry: Registry, settings: Config) -> None:
    sure = judged(registry, settings, answers(GOOD, temper=4), version=1)
    assert sure.said.startswith("there is no champion yet: version 1 is refused, calibration: ECE 0.")
    assert "breaks gate.max_ece=0.05" in sure.said and registry.champion() is None
    first = judged(registry, settings, answers(GOOD), version=1)
    assert first.said == "version 1 is the first champion: it keeps every limit"
    assert registry.champion() == 1 and registry.gate(1) == PASSED


def test_a_better_model_passes(registry: Registry, settings: Config) -> None:
    registry.promote(1)
    verdict = judged(registry, settings, answers(GOOD), champion=answers(1.0))
    assert verdict.said.startswith("version 2 is the new champion: macro-AUROC 0.")
    assert registry.champion() == 2 and all(check.passed for check in verdict.checks), verdict.checks


@pytest.mark.parametrize(
    ("test", "champion", "more", "words"),
    [
        (answers(1.0), answers(GOOD), {}, "better: macro-AUROC 0."),
        (answers(GOOD), answers(GOOD), {}, "(its lower end must lie above gate.min_gain=0)"),
        (answers(GOOD, temper=4), answers(1.0), {}, "calibration: ECE 0."),
        (answers(3.0, worse_for="F"), answers(0.5), {}, "subgroup gap in AUROC: sex: F against M, gap 0."),
        (answers(3.0, worse_for="M"), answers(0.5), {}, "subgroup gap in FNR: sex: M against F, gap 0."),
        (answers(GOOD), answers(1.0), {"hits": 0.3}, "localisation: pointing 0.300, centre prior 0.500 (200 boxes)"),
        (
            answers(GOOD),
            answers(1.0),
            {"ms": 5000.0},
            "latency: 5000 ms an image on a bench breaks gate.max_latency_ms",
        ),
    ],
    ids=["worse", "no better", "miscalibrated", "AUROC gap", "FNR gap", "points elsewhere", "slow"],
)
def test_a_worse_model_is_refused_in_the_right_words(
    registry: Registry,
    settings: Config,
    test: LabelledPredictions,
    champion: LabelledPredictions,
    more: dict[str, Any],
    words: str,
) -> None:
    registry.promote(1)
    verdict = judged(registry, settings, test, champion=champion, **more)
    assert verdict.said.startswith("champion stays version 1: version 2 is refused, ") and words in verdict.said
    assert "\n" not in verdict.said
    assert registry.champion() == 1 and words in (registry.gate(2) or "")
    if champion.logits is not test.logits and "gap" in words:  # it is better, and that does not help it
        assert verdict.checks[0].passed


def test_only_what_is_broken_is_named(registry: Registry, settings: Config) -> None:
    registry.promote(1)
    verdict = judged(registry, settings, answers(GOOD, temper=4), champion=answers(1.0))
    assert [check.name for check in verdict.checks if check.passed is False] == ["calibration"]
    lenient = settings.model_copy(update={"gate": settings.gate.model_copy(update={"max_ece": None})})
    assert judged(registry, lenient, answers(GOOD, temper=4), champion=answers(1.0)).said.startswith(
        "version 2 is the new"
    )


def test_a_champion_that_cannot_be_compared_stays(registry: Registry, settings: Config) -> None:
    registry.promote(1)
    rivals = ChampionComparison(1, cannot="it answers other findings, so the two cannot be compared")
    evidence = measured(settings, answers(GOOD), None)
    assert apply_gate(settings, registry, 2, evidence, rivals).said == (
        "champion stays version 1: version 2 is refused, "
        "version 1: it answers other findings, so the two cannot be compared"
    )


def test_by_hand_and_back(registry: Registry, settings: Config) -> None:

    def by_hand(**asked: object) -> str:
        update: dict[str, object] = {"promote": settings.promote.model_copy(update=asked)}
        return str(
            go(promote.run, settings.model_copy(update={**update, "force": asked.pop("force", False)})).facts[
                "headline"
            ]
        )

    with pytest.raises(UserError, match=r"version 1 was never judged: .* force=true promotes it unjudged"):
        by_hand(model="1")
    judged(registry, settings, answers(GOOD), version=1)
    assert judged(registry, settings, answers(1.0), champion=answers(GOOD)).said.startswith("champion stays version 1")
    with pytest.raises(UserError, match=r"the gate refused version 2: better: .* force=true promotes it nevertheless"):
        by_hand(model="2")
    forced = settings.model_copy(update={"force": True, "promote": settings.promote.model_copy(update={"model": "2"})})
    assert go(promote.run, forced).facts["headline"] == "champion is version 2, it was version 1"
    assert by_hand(rollback=True) == "champion is version 1 again, version 2 was rolled back"
    assert registry.champion() == 1
    better = judged(registry, settings, answers(3.0), champion=answers(GOOD))
    assert better.said.endswith("version 2 is refused, it was rolled back by hand") and registry.champion() == 1
    assert judged(registry, settings, answers(3.0), version=3, champion=answers(GOOD)).said.startswith(
        "version 3 is the new"
    )
    assert registry.champions() == [1, 3]
    go(promote.run, forced)
    assert registry.champions() == [1, 3, 2] and not registry.rolled_back(2)
    for back in (3, 1):
        by_hand(rollback=True)
        assert registry.champion() == back
    with pytest.raises(UserError, match="had no champion before this one"):
        by_hand(rollback=True)
    for which in (None, "best"):
        with pytest.raises(UserError, match="say which version"):
            by_hand(model=which)
    with pytest.raises(UserError, match="has no version 9"):
        by_hand(model="9")


def test_what_could_not_be_judged_refuses_nobody(registry: Registry, settings: Config) -> None:
    evidence = measured(settings, answers(GOOD), None)
    bare = replace(evidence, localisation=None, latency=None, subgroups=None, calibration=())
    verdict = apply_gate(settings, registry, 1, bare, ChampionComparison(None))
    assert {check.passed for check in verdict.checks} == {None} and registry.champion() == 1


def test_maps_too_coarse_to_point_are_not_held_against_a_model(registry: Registry, settings: Config) -> None:
    verdict = judged(registry, settings, answers(GOOD), version=1, hits=0.0, grid=3)
    told = {check.name: check for check in verdict.checks}["localisation"]
    assert told.passed is None and told.said == "maps of 3 x 3 cells are too coarse to point"
    assert registry.champion() == 1


def test_a_registry_that_does_not_answer_is_not_one_without_a_champion(
    settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(settings.tracking, Lake(settings.lake))
    assert registry.champion() is None  # there is not even a model of this name

    def down(*_: object) -> None:
        raise MlflowException("the database is gone", INTERNAL_ERROR)

    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version_by_alias", down)
    with pytest.raises(MlflowException, match="the database is gone"):
        registry.champion()


def test_what_an_interval_leaves_open_is_not_held_against_a_model(registry: Registry, settings: Config) -> None:
    verdict = judged(registry, settings, answers(GOOD), version=1, hits=0.47)
    told = {check.name: check for check in verdict.checks}["localisation"]
    assert told.passed and told.said.startswith("pointing 0.470, centre prior 0.500 (200 boxes), difference -0.0300 [")
