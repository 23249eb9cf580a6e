"""The stages one after another on real Ray, Spark, Delta and MLflow."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest

from chestai.cli.console import Screen
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, QUARANTINE, STATS
from chestai.model.registry import Registry
from pipelines import etl, evaluate, phantom, run, score, train
from pipelines.scoring.ledger import read_scores
from tests.support.chain import Chain, make_small_config, run_quietly


def test_etl_accounts_for_every_input(built: Chain) -> None:
    snapshot = built.lake.find_snapshot()
    assert snapshot.accounting["entries"] == 480
    assert snapshot.accounting["gold"] + snapshot.accounting["quarantined_entries"] == 480
    reasons = built.lake.read(QUARANTINE)["reason"].to_pylist()
    assert sorted(reasons) == ["duplicate_content", "not_an_image", "truncated"]
    assert snapshot.synthetic


def test_training_logs_one_mlflow_run_that_names_its_data(finished: Chain) -> None:
    registry = Registry(finished.config.tracking, finished.lake)
    snapshot = finished.lake.find_snapshot()
    run = registry.connect().get_run(finished.summaries["train"].facts["run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["snapshot"] == snapshot.snapshot_id
    assert run.data.params["network.backbone"] == "densenet121"
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == snapshot.snapshot_id
    for metric in ("train_loss", "val_loss", "val_macro_auroc", "images_per_s", "lr"):
        history = registry.connect().get_metric_history(run.info.run_id, metric)
        assert [point.step for point in history] == [1, 2, 3, 4, 5], metric
    assert "test_macro_auroc" in run.data.metrics


def test_scores_hold_every_image_once_and_equal_the_bundle(finished: Chain) -> None:
    lake, snapshot = finished.lake, finished.lake.find_snapshot()
    model = Registry(finished.config.tracking, lake).load("champion")
    scores = read_scores(lake, model.version).to_pandas()
    images = lake.read_gold(snapshot, IMAGES).to_pandas().set_index("image_id")
    assert sorted(scores["image_id"]) == sorted(images.index)
    assert scores["not_scored"].isna().all()

    sample = scores.iloc[:: max(1, len(scores) // 12)]
    files = [Path(images.loc[image_id, "path"]).read_bytes() for image_id in sample["image_id"]]
    batch = [preprocess.load(file, 64) for file in files]
    findings = list(model.bundle.card.findings)
    expected = model.bundle.predict(batch).probabilities
    np.testing.assert_allclose(sample[[f"prob_{finding}" for finding in findings]], expected, atol=1e-5)
    np.testing.assert_allclose(sample["triage_score"], model.bundle.triage.score(expected, findings), atol=1e-5)
    assert list(sample["bucket"]) == model.bundle.triage.buckets(sample["triage_score"])

    from_mlflow = mlflow.pyfunc.load_model(f"models:/{model.name}@champion").predict(pd.DataFrame({"image": files}))
    np.testing.assert_allclose(from_mlflow[findings], expected, atol=1e-5)


def test_evaluation_has_intervals_calibration_and_thresholds(finished: Chain) -> None:
    report = finished.summaries["evaluate"].facts["report"]
    macro = report["macro"]["auroc"]
    assert macro["low"] <= macro["value"] <= macro["high"]
    assert set(report["findings"]) == set(finished.lake.find_snapshot().vocabulary)
    card = Registry(finished.config.tracking, finished.lake).load("champion").bundle.card
    assert len(card.calibration["slope"]) == len(card.findings) == len(card.thresholds)
    assert any(threshold is not None for threshold in card.thresholds.values())
    assert not all(card.calibration["fallback"])


def test_second_run_repeats_no_stage(finished: Chain) -> None:
    lake = finished.lake
    stages = (phantom.run, etl.run, train.run, evaluate.run, score.run)
    before = {name: lake.version(name) for name in (STATS, IMAGES, "scores/1", "scores/1-files")}
    snapshot = lake.find_snapshot()
    again = [run_quietly(stage, finished.config) for stage in stages]
    assert lake.find_snapshot() == snapshot
    assert {name: lake.version(name) for name in before} == before
    for summary in again:
        assert summary.facts["headline"].startswith("already"), summary
    assert again[3].facts["version"] == 1
    assert again[3].facts["report"] == finished.summaries["evaluate"].facts["report"]
    registry = Registry(finished.config.tracking, lake)
    assert len(registry.finished_runs({"chestai.stage": "train"})) == 1
    assert len(registry.connect().search_model_versions(f"name = '{finished.config.tracking.model}'")) == 1


@pytest.mark.slow
def test_worse_candidate_does_not_become_champion(finished: Chain) -> None:
    config = finished.config
    # A network that learns nothing ranks by chance.
    untrained = config.model_copy(update={"train": config.train.model_copy(update={"lr": 1e-12, "epochs": 1})})
    run_quietly(train.run, untrained)
    verdict = run_quietly(evaluate.run, untrained).facts["verdict"]
    registry = Registry(config.tracking, finished.lake)
    trained = float(finished.summaries["evaluate"].facts["report"]["macro"]["auroc"]["value"])
    assert trained > 0.6, "the first model must have learnt something, or this proves nothing"
    assert re.match(
        r"champion stays version 1: version 2 is refused, better: macro-AUROC 0\.\d+, champion 0\.\d+", verdict
    ), verdict
    assert registry.champion() == 1


@pytest.mark.slow
def test_chain_goes_on_with_a_model_that_the_gate_refuses(
    built: Chain, tmp_path: Path, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shutil.ignore_patterns("mlflow", "scores", "reports", "models")
    shutil.copytree(built.config.lake, tmp_path / "lake", ignore=made)
    impossible = ("gate.max_latency_ms=0.001", "train.epochs=1", "evaluate.robustness_images=0", "serve.stay=false")
    config = make_small_config(tmp_path, f"phantom.root={built.config.phantom.root}", *impossible)
    served: list[dict[str, Any]] = []
    print_summary = run._print_summary

    def ask(*given: Any) -> None:
        served.append(httpx.get(f"{given[-1]}/model").raise_for_status().json())
        print_summary(*given)

    monkeypatch.setattr(run, "_print_summary", ask)
    run.run(config, screen)
    lake = Lake(config.lake)
    assert Registry(config.tracking, lake).champion() is None
    (card,) = served
    assert card["version"] == 1 and card["not_champion"].startswith("the gate refused it, latency: ")
    assert lake.read("scores/1").num_rows == lake.read_gold(lake.find_snapshot(), IMAGES).num_rows
    report = json.loads(Path(lake.uri("reports", "score.json")).read_text())
    assert report["facts"]["not_champion"] == card["not_champion"]
    assert isinstance(screen.console.file, io.StringIO)
    output = " ".join(screen.console.file.getvalue().split())
    assert "version 1 scores and serves, not champion: the gate refused it, latency: " in output
    assert f"`python -m pipelines.promote lake={config.lake} model=1 force=true`" in output


def test_stage_without_input_names_the_command_that_makes_it(tmp_path: Path, ray_cluster: None) -> None:
    empty = make_small_config(tmp_path)
    for stage in (train.run, evaluate.run, score.run):
        with pytest.raises(UserError, match=r"holds no build: run `python -m pipelines\.etl"):
            run_quietly(stage, empty)
    with pytest.raises(UserError, match=r"python -m pipelines\.phantom"):
        run_quietly(etl.run, empty)


def test_evaluation_and_scoring_without_a_model_name_the_training_command(built: Chain, tmp_path: Path) -> None:
    config = built.config.model_copy(
        update={"tracking": built.config.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/other.db"})}
    )
    with pytest.raises(UserError, match=r"no trained model .* run `python -m pipelines\.train"):
        run_quietly(evaluate.run, config)
    with pytest.raises(UserError, match=r"no champion .* run `python -m pipelines\.train"):
        run_quietly(score.run, config)


def test_metadata_of_phantoms_does_not_predict_their_labels() -> None:
    """Name, follow-up, channels, size, age, sex and view together rank the findings by chance."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    from chestai.phantom import plan

    entries = plan(1500, 64, seed=3)
    patients: dict[int, int] = {}
    for entry in entries:
        patients[entry.patient_id] = patients.get(entry.patient_id, 0) + 1
    features = np.array(
        [
            [
                entry.patient_id,
                entry.follow_up,
                patients[entry.patient_id],
                entry.form == "rgba",
                int(re.sub(r"\D", "", entry.age)),
                entry.sex == "M",
                entry.view == "AP",
                entry.width,
                entry.height,
                float(entry.spacing),
                entry.split == "test",
            ]
            for entry in entries
        ],
        float,
    )
    groups = np.array([entry.patient_id for entry in entries])
    aurocs = []
    for finding in ("Effusion", "Cardiomegaly", "Pneumothorax", "Mass", "Edema"):
        labels = np.array([finding in entry.findings for entry in entries])
        forest = RandomForestClassifier(100, min_samples_leaf=10, random_state=0)
        predicted = cross_val_predict(forest, features, labels, groups=groups, cv=GroupKFold(4), method="predict_proba")
        aurocs.append(roc_auc_score(labels, predicted[:, 1]))
    assert abs(np.mean(aurocs) - 0.5) < 0.05, aurocs


@pytest.mark.slow
def test_network_learns_nothing_from_shuffled_labels(finished: Chain, tmp_path: Path) -> None:
    """With the labels shuffled among the same images, names and sizes, whatever a network learns is a leak."""
    lake, snapshot = finished.lake, finished.lake.find_snapshot()
    labels = lake.read_gold(snapshot, "gold/labels")
    order = np.random.default_rng(0).permutation(labels.num_rows)
    shuffled = labels.set_column(1, "findings", labels["findings"].take(order))
    shuffled = shuffled.set_column(2, "targets", labels["targets"].take(order))
    config = make_small_config(tmp_path)
    other = type(lake)(config.lake)
    versions = {
        IMAGES: other.write(IMAGES, lake.read_gold(snapshot, IMAGES)),
        "gold/labels": other.write("gold/labels", shuffled),
        BOXES: other.write(BOXES, lake.read_gold(snapshot, BOXES)),
    }
    other.publish(replace(snapshot, snapshot_id="shuffled", versions=versions))
    run_quietly(train.run, config)
    macro = run_quietly(evaluate.run, config).facts["report"]["macro"]["auroc"]["value"]
    trained = finished.summaries["evaluate"].facts["report"]["macro"]["auroc"]["value"]
    assert abs(macro - 0.5) < 0.08 and trained > 0.6, (macro, trained)
