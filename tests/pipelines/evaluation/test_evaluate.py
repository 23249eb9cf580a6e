"""Evaluating and deriving real models on real Ray and MLflow: outputs, refusals, leakage."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from chestai.model import seen_patients
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from pipelines import derive, evaluate, score
from pipelines.evaluation.leakage import LEAKAGE_REPORT, check_leakage
from pipelines.training.register import register
from tests.support.chain import SMALL, Chain, run_quietly

TABLES = {
    *("ranking.csv", "operating_points.csv", "calibration.csv", "reliability_curve.csv", "confidence_bands.csv"),
    *("label_sets.csv", "triage.csv", "queue.csv"),
    *("search_by_image.csv", "search_by_text.csv"),
    *("subgroups.csv", "localisation.csv", "robustness.csv"),  # and no gaps: too few of any group
}
NO_CORRUPTION = "evaluate.robustness_images=0"


def configure(chain: Chain, *words: str, tracking: str = "") -> Config:
    """The chain's config with further words. tracking: another database than the chain's."""
    paths = [f"lake={chain.config.lake}", f"phantom.root={chain.config.phantom.root}"]
    database = [f"tracking.uri=sqlite:///{tracking}"] if tracking else []
    return conf.load([*SMALL, *paths, *database, *words])


def read_csv(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def load_model(chain: Chain, version: str = "1") -> Bundle:
    return Registry(chain.config.tracking, chain.lake).load(version).bundle


@pytest.fixture
def keep_report(finished: Chain) -> Iterator[None]:
    """Restore the chain's report of its candidate: a second evaluation of it finds that report and repeats nothing."""
    report = Path(finished.lake.uri("reports", "evaluate.json"))
    content = report.read_bytes()
    yield
    report.write_bytes(content)


def test_candidate_report_is_logged_and_linked_from_its_version(finished: Chain) -> None:
    facts = finished.summaries["evaluate"].facts
    folder = Path(facts["model_card"]).parent
    assert folder.name == "version-1-test" and {path.name for path in folder.glob("*.csv")} == TABLES
    page = (folder / "model_card.html").read_text()
    assert "chestai version 1" in page and "SYNTHETIC" in page and 'src="http' not in page
    assert (folder / "model_card.md").read_text().startswith("# ")
    checks = {check["name"]: check["passed"] for check in json.loads((folder / "gate.json").read_text())}
    assert checks["better"] is None and checks["calibration"] is True and checks["latency"] is True

    registry = Registry(finished.config.tracking, finished.lake)
    version = registry.connect().get_model_version(finished.config.tracking.model, "1")
    assert version.tags["gate"] == "passed" and version.tags["test_macro_auroc"].startswith("0.")
    assert "Model card" in str(version.description)
    assert Path(mlflow.artifacts.download_artifacts(version.tags["model_card"])).read_text() == page
    kept = {item.path for item in registry.connect().list_artifacts(str(version.run_id), "evaluation/test")}
    assert {f"evaluation/test/{name}" for name in TABLES} < kept and "evaluation/test/plots" in kept


def test_ranking_table_matches_scikit_learn(finished: Chain) -> None:
    """AUROC computed anew from the scores of the same model."""
    from sklearn.metrics import roc_auc_score

    folder = Path(finished.summaries["evaluate"].facts["model_card"]).parent
    rows = finished.lake.read_usable(finished.lake.find_snapshot(), ["split"]).to_pandas().set_index("image_id")
    rows = rows[rows["split"] == "test"]
    scores = finished.lake.read("scores/1").to_pandas().set_index("image_id").loc[rows.index]
    truth = np.stack([np.array(targets) for targets in rows["targets"]])
    findings = load_model(finished).card.findings
    ranking = {row["finding"]: row for row in read_csv(folder, "ranking.csv")}
    for column, finding in enumerate(findings):
        auroc = ranking[finding]["auroc"]
        assert bool(auroc) == (len(np.unique(truth[:, column])) == 2)
        if auroc:
            expected = roc_auc_score(truth[:, column], scores[f"prob_{finding}"])
            assert float(auroc) == pytest.approx(expected, abs=1e-6)
    assert len(read_csv(folder, "robustness.csv")) == 21
    maps = {row["maps"] for row in read_csv(folder, "localisation.csv")}
    assert maps == {"model", "random map", "centre prior", "random weights"}


@pytest.mark.usefixtures("keep_report")
def test_predictions_file_gets_the_same_numbers_as_its_model(finished: Chain, tmp_path: Path) -> None:
    export = finished.lake.read("scores/1").to_pandas().dropna(subset="triage_score")
    columns = ["image_id", *(name for name in export.columns if name.startswith("prob_"))]
    export = export[columns].drop(columns="prob_Hernia").rename(columns={"image_id": "Image Index"})
    export["Image Index"] += ".png"
    unknown = pd.DataFrame({"Image Index": ["99999999_000.png", "99999999_001.png"]})
    file = tmp_path / "theirs.csv"
    pd.concat([export, unknown]).to_csv(file, index=False)
    config = configure(finished, f"evaluate.predictions={file}", "evaluate.predictions_prefix=prob_")
    before = Registry(config.tracking, finished.lake).champion()
    facts = run_quietly(evaluate.run, config).facts
    assert Registry(config.tracking, finished.lake).champion() == before
    assert facts["verdict"] == "measured, nothing changed" and facts["split_known"] is False
    assert facts["notes"] == "2 rows left out: not frontal images of the lake. Not predicted: Hernia."
    own = finished.summaries["evaluate"].facts["auroc"]
    for finding, value in facts["auroc"].items():
        assert value == pytest.approx(own[finding], abs=1e-6, nan_ok=True), finding
    assert "SPLIT NOT KNOWN" in Path(facts["model_card"]).read_text()
    assert not (Path(facts["model_card"]).parent / "robustness.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("name,prob_Mass\na,0.5\n", "has no column image_id or Image Index: its first columns are name, prob_Mass"),
        ("image_id,Mass\na,0.5\n", "has no column for a finding: expected prob_Atelectasis and so on"),
        ("image_id,prob_Mass\na,0.5\na.png,0.6\n", "has image a twice"),
        ("image_id,prob_Mass\na,0.5\nb,3.5\n", "column prob_Mass: 3.5 is not a probability from 0 to 1"),
        ("image_id,prob_Mass\na,0.5\nb,high\n", "column prob_Mass: high is not a probability from 0 to 1"),
        ("image_id,prob_Mass\na,0.5\n", "has no prediction for an image of the lake"),
    ],
)
def test_rejects_unusable_predictions_file_in_one_line(
    built: Chain, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "theirs.csv"
    if content is not None:
        file.write_text(content)
    config = configure(
        built, f"evaluate.predictions={file}", "evaluate.predictions_prefix=prob_", tracking=f"{tmp_path}/db"
    )
    with pytest.raises(UserError) as error:
        run_quietly(evaluate.run, config)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["train", "val"])
def test_candidate_is_only_judged_on_test(built: Chain, tmp_path: Path, split: str) -> None:
    with pytest.raises(UserError, match=f"split={split} needs model=VERSION"):
        run_quietly(evaluate.run, configure(built, f"evaluate.split={split}", tracking=f"{tmp_path}/db"))


@pytest.mark.slow
@pytest.mark.usefixtures("keep_report")
def test_other_splits_and_ensembles_change_nothing(finished: Chain) -> None:
    config = configure(
        finished, "evaluate.model=1", "evaluate.split=val", "evaluate.prevalence=measured", NO_CORRUPTION
    )
    facts = run_quietly(evaluate.run, config).facts
    assert facts["split"] == "val" and "chosen on these very images" in facts["notes"]
    methods = [row["method"] for row in read_csv(Path(facts["model_card"]).parent, "calibration.csv")]
    assert {"none", "platt", "temperature", "isotonic", "shifted"} <= set(methods)

    words = ("evaluate.model=1+1", "evaluate.tta=[flip]", NO_CORRUPTION)
    facts = run_quietly(evaluate.run, configure(finished, *words)).facts
    assert facts["model"] == "chestai version 1+1 with flip" and facts["version"] is None
    assert "switched off (evaluate.robustness_images=0)" in Path(facts["model_card"]).read_text()
    assert Registry(config.tracking, finished.lake).champion() == 1


@pytest.mark.slow
@pytest.mark.usefixtures("keep_report")
def test_derived_version_is_scored_and_gated_like_any_other(finished: Chain, tmp_path: Path) -> None:
    """With test-time augmentation, isotonic calibration, another prevalence and a tuned triage rule."""
    registry_uri = f"{tmp_path}/mlflow.db"
    config = configure(
        finished,
        *("derive.model=1", "derive.tta=[zoom]", "derive.calibration=isotonic", NO_CORRUPTION),
        *("derive.prevalence={Effusion: 0.3}", "derive.triage_goal={urgent_sensitivity: 0.7, soon_sensitivity: 0.9}"),
        *("score.model=2", f"score.csv={tmp_path / 'scores.csv'}", "force=true"),
        tracking=registry_uri,
    )
    trained, registry = load_model(finished), Registry(config.tracking, finished.lake)
    registry.connect()
    with mlflow.start_run(
        tags={"chestai.stage": "train", "chestai.snapshot": finished.lake.find_snapshot().snapshot_id}
    ):
        assert register(trained, registry) == 1
    registry.promote(1)
    facts = run_quietly(derive.run, config).facts
    assert facts["version"] == 2 and facts["networks"] == 1 and facts["views"] == "plain, zoom"
    bundle = registry.load("2").bundle
    assert bundle.calibration.method == "isotonic" and bundle.seen_patients == trained.seen_patients
    assert bundle.card.triage != trained.card.triage
    assert bundle.triage.emergencies == trained.triage.emergencies
    assert bundle.confidence is not None and bundle.confidence != trained.confidence
    assert bundle.ood_detector is not None and trained.ood_detector is not None
    assert bundle.ood_detector.limit == trained.ood_detector.limit
    assert bundle.drift_reference is not None and trained.drift_reference is not None
    features, before = bundle.drift_reference.features, trained.drift_reference.features
    assert [*features] == [*before]
    kept = {name for name, feature in features.items() if feature == before[name]}
    assert {"pixels.mean", "pixels.strangeness", "view", "outcome"} <= kept
    assert not {"probability.Effusion", "triage.score"} & kept, "its own scores, not the first model's"

    scored = run_quietly(score.run, config)
    assert scored.rows == finished.summaries["score"].rows
    own = pd.read_csv(tmp_path / "scores.csv").set_index("image_id")
    image_id = own.index[0]
    path = finished.lake.read(IMAGES).to_pandas().set_index("image_id").loc[image_id, "path"]
    prediction = bundle.predict([preprocess.load(Path(path).read_bytes(), bundle.card.size)])
    names = [f"prob_{finding}" for finding in bundle.card.findings]
    np.testing.assert_allclose(own.loc[image_id, names].to_numpy(float), prediction.probabilities[0], atol=1e-5)

    verdict = run_quietly(evaluate.run, config).facts["verdict"]
    assert verdict.startswith(("champion stays version 1: version 2 is refused, ", "version 2 is the new champion"))
    assert (registry.champion() == 2) == verdict.startswith("version 2")


def test_refuses_to_test_on_training_patients(finished: Chain, tmp_path: Path) -> None:
    """A new split of the corpus puts patients that the model was trained on into test."""
    lake, snapshot, bundle = finished.lake, finished.lake.find_snapshot(), load_model(finished)
    assert bundle.card.split_known and len(bundle.seen_patients) == 1
    check_leakage(bundle, "version 1", lake, snapshot, ["test", "val"])

    images = lake.read_gold(snapshot, IMAGES).to_pandas()
    moved = sorted(set(images.loc[images["split"] == "train", "patient_id"]))[:3]
    chosen = sorted(set(images.loc[images["split"] == "val", "patient_id"]))[:2]
    images.loc[images["patient_id"].isin([*moved, *chosen]), "split"] = "test"
    other = Lake(str(tmp_path / "lake"))
    versions = {
        IMAGES: other.write(IMAGES, pa.Table.from_pandas(images, preserve_index=False)),
        "gold/labels": other.write("gold/labels", lake.read_gold(snapshot, "gold/labels")),
    }
    other.publish(replace(snapshot, snapshot_id="new split", versions=versions))
    words = ("evaluate.model=1", f"tracking.uri={Registry(finished.config.tracking, lake).uri}")
    with pytest.raises(UserError, match="was trained on patients of this corpus: 5 test patients and 0 val patients"):
        run_quietly(evaluate.run, conf.load([*SMALL, f"lake={other.root}", *words]))
    report: Any = pd.read_csv(other.uri("reports", LEAKAGE_REPORT), dtype=str).set_index("patient_id")
    assert dict(report["seen_as"]) == {**dict.fromkeys(moved, "train"), **dict.fromkeys(chosen, "val")}
    # The same IDs in another source are other people; a bundle that remembers nobody has no leakage.
    patients = {seen_patients.patient_hash("elsewhere", patient_id) for patient_id in moved}
    elsewhere = seen_patients.SeenPatients.of(patients, ())
    check_leakage(replace(bundle, seen_patients=(elsewhere,)), "version 1", other, other.find_snapshot(), ["test"])
    check_leakage(replace(bundle, seen_patients=()), "version 1", other, other.find_snapshot(), ["test"])
