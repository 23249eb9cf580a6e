"""The promotion gate: who becomes champion, and what the others are told. Real MLflow, made-up predictions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.evaluation.promotion_gate import run_checks
from chestai.lake.lake import Lake
from chestai.model.registry import PASSED, Registry
from pipelines import promote
from pipelines.evaluation.promotion import ChampionComparison, apply_gate
from pipelines.inference.labelled_predictions import LabelledPredictions
from tests.support.chain import run_quietly
from tests.support.gate import judge, make_evidence, predict

GOOD = 1.5


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests, because creating it takes seconds."""
    return tmp_path_factory.mktemp("gate") / "lake"


@pytest.fixture
def settings(lake: Path, tmp_path: Path) -> Config:
    """Each test has its own registered model."""
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


def promote_by_hand(settings: Config, model: str | None = None, rollback: bool = False, force: bool = False) -> str:
    """The headline of `python -m pipelines.promote`."""
    section = settings.promote.model_copy(update={"model": model, "rollback": rollback})
    config = settings.model_copy(update={"promote": section, "force": force})
    return str(run_quietly(promote.run, config).facts["headline"])


def test_first_model_is_judged_by_limits_only(registry: Registry, settings: Config) -> None:
    overconfident = judge(registry, settings, predict(GOOD, temper=4), version=1)
    assert overconfident.summary.startswith("there is no champion yet: version 1 is refused, calibration: ECE 0.")
    assert "breaks gate.max_ece=0.05" in overconfident.summary and registry.champion() is None
    first = judge(registry, settings, predict(GOOD), version=1)
    assert first.summary == "version 1 is the first champion: it meets every limit"
    assert registry.champion() == 1 and registry.gate(1) == PASSED


def test_better_model_becomes_champion(registry: Registry, settings: Config) -> None:
    registry.promote(1)
    verdict = judge(registry, settings, predict(GOOD), champion=predict(1.0))
    assert verdict.summary.startswith("version 2 is the new champion: macro-AUROC 0.")
    assert registry.champion() == 2 and all(check.passed for check in verdict.checks), verdict.checks


@pytest.mark.parametrize(
    ("test", "champion", "options", "reason"),
    [
        (predict(1.0), predict(GOOD), {}, "better: macro-AUROC 0."),
        (predict(GOOD), predict(GOOD), {}, "(its lower end must lie above gate.min_gain=0)"),
        (predict(GOOD, temper=4), predict(1.0), {}, "calibration: ECE 0."),
        (predict(3.0, worse_for="F"), predict(0.5), {}, "subgroup gap in AUROC: sex: F against M, gap 0."),
        (predict(3.0, worse_for="M"), predict(0.5), {}, "subgroup gap in FNR: sex: M against F, gap 0."),
        (predict(GOOD), predict(1.0), {"hits": 0.3}, "localisation: pointing 0.300, centre prior 0.500 (200 boxes)"),
        (predict(GOOD), predict(1.0), {"ms": 5000.0}, "latency: 5000 ms an image on a bench breaks gate.max_latency"),
    ],
    ids=["worse", "no better", "miscalibrated", "AUROC gap", "FNR gap", "points elsewhere", "slow"],
)
def test_refuses_worse_model_and_says_why(
    registry: Registry,
    settings: Config,
    test: LabelledPredictions,
    champion: LabelledPredictions,
    options: dict[str, Any],
    reason: str,
) -> None:
    registry.promote(1)
    verdict = judge(registry, settings, test, champion=champion, **options)
    assert verdict.summary.startswith("champion stays version 1: version 2 is refused, ") and reason in verdict.summary
    assert "\n" not in verdict.summary
    assert registry.champion() == 1 and reason in (registry.gate(2) or "")
    if "gap" in reason:
        assert verdict.checks[0].passed, "it is better, and is refused all the same"


def test_names_only_failed_checks_and_skips_limits_that_are_off(registry: Registry, settings: Config) -> None:
    registry.promote(1)
    verdict = judge(registry, settings, predict(GOOD, temper=4), champion=predict(1.0))
    assert [check.name for check in verdict.checks if check.passed is False] == ["calibration"]
    lenient = settings.model_copy(update={"gate": settings.gate.model_copy(update={"max_ece": None})})
    verdict = judge(registry, lenient, predict(GOOD, temper=4), champion=predict(1.0))
    assert verdict.summary.startswith("version 2 is the new")


def test_champion_that_cannot_be_compared_stays(registry: Registry, settings: Config) -> None:
    registry.promote(1)
    comparison = ChampionComparison(1, obstacle="it predicts other findings, so the two cannot be compared")
    checks = run_checks(make_evidence(registry, settings, predict(GOOD), None), settings.gate)
    assert apply_gate(registry, 2, checks, comparison).summary == (
        "champion stays version 1: version 2 is refused, "
        "version 1: it predicts other findings, so the two cannot be compared"
    )


def test_promotion_by_hand_needs_force_unless_the_gate_passed(registry: Registry, settings: Config) -> None:
    with pytest.raises(UserError, match=r"version 1 was never judged: .* force=true promotes it unjudged"):
        promote_by_hand(settings, "1")
    judge(registry, settings, predict(GOOD), version=1)
    verdict = judge(registry, settings, predict(1.0), champion=predict(GOOD))
    assert verdict.summary.startswith("champion stays version 1")
    with pytest.raises(UserError, match=r"the gate refused version 2: better: .* force=true promotes it anyway"):
        promote_by_hand(settings, "2")
    assert promote_by_hand(settings, "2", force=True) == "champion is version 2, it was version 1"
    for model in (None, "best"):
        with pytest.raises(UserError, match="which version"):
            promote_by_hand(settings, model)
    with pytest.raises(UserError, match="has no version 9"):
        promote_by_hand(settings, "9")


def test_rollback_returns_to_earlier_champions_one_by_one(registry: Registry, settings: Config) -> None:
    judge(registry, settings, predict(GOOD), version=1)
    judge(registry, settings, predict(1.0), champion=predict(GOOD))
    promote_by_hand(settings, "2", force=True)
    assert promote_by_hand(settings, rollback=True) == "champion is version 1 again, version 2 was rolled back"
    assert registry.champion() == 1
    better = judge(registry, settings, predict(3.0), champion=predict(GOOD))
    assert better.summary.endswith("version 2 is refused, it was rolled back by hand") and registry.champion() == 1
    best = judge(registry, settings, predict(3.0), version=3, champion=predict(GOOD))
    assert best.summary.startswith("version 3 is the new")
    assert registry.champions() == [1, 3]
    promote_by_hand(settings, "2", force=True)
    assert registry.champions() == [1, 3, 2] and not registry.rolled_back(2)
    for champion in (3, 1):
        promote_by_hand(settings, rollback=True)
        assert registry.champion() == champion
    with pytest.raises(UserError, match="had no champion before this one"):
        promote_by_hand(settings, rollback=True)


def test_checks_that_cannot_be_judged_do_not_refuse(registry: Registry, settings: Config) -> None:
    evidence = make_evidence(registry, settings, predict(GOOD), None)
    bare = replace(evidence, localisation=None, latency=None, subgroups=None, calibration=())
    verdict = apply_gate(registry, 1, run_checks(bare, settings.gate), ChampionComparison(None))
    assert {check.passed for check in verdict.checks} == {None} and registry.champion() == 1


def test_maps_too_coarse_to_point_do_not_refuse(registry: Registry, settings: Config) -> None:
    verdict = judge(registry, settings, predict(GOOD), version=1, hits=0.0, grid=3)
    check = {check.name: check for check in verdict.checks}["localisation"]
    assert check.passed is None and check.message == "maps of 3 x 3 cells are too coarse to point"
    assert registry.champion() == 1


def test_difference_within_the_interval_does_not_refuse(registry: Registry, settings: Config) -> None:
    verdict = judge(registry, settings, predict(GOOD), version=1, hits=0.47)
    check = {check.name: check for check in verdict.checks}["localisation"]
    expected = "pointing 0.470, centre prior 0.500 (200 boxes), difference -0.0300 ["
    assert check.passed and check.message.startswith(expected)


def test_registry_failure_is_not_taken_for_a_missing_champion(
    settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(settings.tracking, Lake(settings.lake))
    assert registry.champion() is None, "there is not even a model of this name"

    def fail(*_: object) -> None:
        raise MlflowException("the database is gone", INTERNAL_ERROR)

    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version_by_alias", fail)
    with pytest.raises(MlflowException, match="the database is gone"):
        registry.champion()
