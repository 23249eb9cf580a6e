"""Training: its MLflow run, its settings, and that the number of workers does not change the result."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from ray.train import UserCallback

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, LABELS
from chestai.model.classifier import Classifier
from chestai.model.registry import Registry
from chestai.monitoring import features
from chestai.monitoring.drift import DriftWindow, measure_drift
from pipelines import train
from pipelines.data.pixel_cache import build_pixel_cache, open_store, read_split_rows
from pipelines.training import trainer
from pipelines.training.loop import compute_val_logits, compute_val_metrics
from pipelines.training.tracking import EpochMetricsLogger
from tests.support.chain import SMALL, Chain, run_quietly

FAST = ("network.backbone=resnet10t", "train.checkpoint_minutes=100")


def train_config(chain: Chain, folder: Path, *more: str) -> Config:
    """Return a config with the chain's lake, other settings and a separate MLflow database."""
    places = (f"lake={chain.config.lake}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}")
    return conf.load([*SMALL, *places, *more])


def history(lake: Lake, config: Config, run_id: str, metric: str) -> list[float]:
    points = Registry(config.tracking, lake).connect().get_metric_history(run_id, metric)
    assert [point.step for point in points] == list(range(1, len(points) + 1))
    return [point.value for point in points]


def test_run_records_settings_curves_system_metrics_and_model_without_pickle(finished: Chain) -> None:
    registry = Registry(finished.config.tracking, finished.lake)
    client, run_id = registry.connect(), finished.summaries["train"].facts["run"]
    run = client.get_run(run_id)
    for name in ("loss.name", "augment.strength", "train.lr", "network.pretrained", "commit", "package.torch"):
        assert run.data.params[name], name
    assert any(name.startswith("system/") for name in run.data.metrics)
    assert 0 <= run.data.metrics["wait_share"] < 1 and run.data.metrics["images_per_s"] > 0
    assert [artifact.path for artifact in client.list_artifacts(run_id, "plots")] == ["plots/training.png"]

    version = registry.version_of(run_id)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{finished.config.tracking.model}/{version}"))
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert "weights.safetensors" in names and "input_example.json" in names
    assert not [name for name in names if Path(name).suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]
    assert {"intake.safetensors", "drift.json", "confidence.json"} <= {*names}
    model = mlflow.pyfunc.load_model(str(folder))
    assert model.metadata.signature.inputs.input_names() == ["image"]
    example = model.input_example
    assert isinstance(example, pd.DataFrame)
    findings = list(finished.lake.find_snapshot().vocabulary)
    assert model.predict(example)[findings].shape == (1, len(findings))
    assert not Path(finished.lake.uri("runs", run_id)).exists()


def test_bundle_holds_confidence_of_its_val_images_and_their_patients(finished: Chain) -> None:
    snapshot, version = finished.lake.find_snapshot(), finished.summaries["train"].facts["model"].split()[-1]
    confidence = Registry(finished.config.tracking, finished.lake).load(version).bundle.confidence
    rows = read_split_rows(finished.lake, snapshot, "val")
    assert confidence is not None and confidence.findings == snapshot.vocabulary
    measured = [bands.bands for bands in confidence.bands if bands.bands]
    assert measured and {sum(band.n for band in bands) for bands in measured} == {len(rows)}
    patients = len({*rows["patient_id"].to_pylist()})
    assert all(max(band.patients for band in bands) <= patients for bands in measured)
    assert {bands[0].patients for bands in measured if len(bands) == 1} <= {patients}


def test_bundle_holds_detector_and_drift_reference_of_its_training_images(finished: Chain) -> None:
    """The test images are neither rejected nor drifted; inverted images are rejected, darkened ones drifted."""
    snapshot, version = finished.lake.find_snapshot(), finished.summaries["train"].facts["model"].split()[-1]
    bundle = Registry(finished.config.tracking, finished.lake).load(version).bundle
    assert bundle.ood_detector is not None and bundle.drift_reference is not None
    counts = {name: sum(feature.counts) for name, feature in bundle.drift_reference.features.items()}
    splits = {name: snapshot.splits[name]["files"] for name in ("train", "val")}
    assert bundle.ood_detector.images == splits["train"]
    assert counts["pixels.mean"] == counts["view"] == splits["train"] + splits["val"]
    assert counts["pixels.strangeness"] == counts["outcome"] == counts["triage.score"] == splits["val"]
    assert {f"probability.{finding}" for finding in bundle.card.findings} < {*counts}

    store = open_store(finished.lake, snapshot, 64, "test", cached=True)
    films = store.read(np.arange(snapshot.splits["test"]["files"]))[0]
    assert (bundle.ood_detector.score(films) > bundle.ood_detector.limit).mean() <= 0.05
    assert (bundle.ood_detector.score(255 - films) > bundle.ood_detector.limit).all()
    verdicts = []
    for pixels in (films, films // 2):
        window = DriftWindow(bundle.drift_reference)
        columns = features.of_scores(bundle.predict(films).probabilities, bundle.card.findings, bundle.triage)
        window.add({**features.of_pixels(pixels, bundle.ood_detector), **columns})
        found = {
            feature.name: feature.verdict for feature in measure_drift(bundle.drift_reference, window.counts()).features
        }
        assert found.pop("view") == found.pop("outcome") == "unknown"
        verdicts.append(found)
    assert {*verdicts[0].values()} <= {"stable", "unknown"} and verdicts[0]["pixels.mean"] == "stable"
    assert verdicts[1]["pixels.mean"] == "drifted"


def make_small_lake(chain: Chain, folder: Path, counts: dict[str, int]) -> Lake:
    """Make a lake with the first images of each split of the chain's lake."""
    snapshot, lake = chain.lake.find_snapshot(), Lake(str(folder / "lake"))
    images, labels = (chain.lake.read_gold(snapshot, table) for table in (IMAGES, LABELS))
    splits = images["split"].to_pylist()
    kept = sorted(at for name, count in counts.items() for at in np.flatnonzero(np.equal(splits, name))[:count])
    versions = {IMAGES: lake.write(IMAGES, images.take(kept)), LABELS: lake.write(LABELS, labels.take(kept))}
    files = {name: {**snapshot.splits[name], "files": count} for name, count in counts.items()}
    lake.publish(replace(snapshot, snapshot_id="few", versions=versions, splits=files))
    return lake


@pytest.mark.slow
def test_two_workers_train_the_same_network_as_one(built: Chain, tmp_path: Path) -> None:
    """Trains 20 epochs of one step in fp32 with augmentation, dropout and BatchNorm over both workers.

    The network is a ResNet, because a DenseNet with random weights amplifies rounding differences to 1e-3 in 7 steps.
    """
    lake = make_small_lake(built, tmp_path, {"train": 47, "val": 16})
    losses = []
    for workers in (1, 2):
        config = conf.load(
            [
                *SMALL,
                f"lake={lake.root}",
                *(*FAST, "train.precision=fp32", "train.epochs=20", "train.batch_size=48", "train.lr=1e-4"),
                *("network.dropout=0.1", "augment.strength=1", f"train.workers={workers}"),
            ]
        )
        losses.append(history(lake, config, run_quietly(train.run, config).facts["run"], "train_loss"))
    assert len(losses[0]) == 20 and losses[0][-1] < losses[0][0] - 0.03
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-3)


def test_validation_is_independent_of_number_of_workers(built: Chain, screen: Screen) -> None:
    snapshot = built.lake.find_snapshot()
    build_pixel_cache(built.lake, snapshot, 64, screen)
    store = open_store(built.lake, snapshot, 64, "val", cached=True)
    torch.manual_seed(0)
    network = Classifier("densenet121", len(snapshot.vocabulary), 64, (0.5,), (0.25,))
    alone, truth = compute_val_logits(network, store, 16, 0, 1)
    parts = [compute_val_logits(network, store, 16, worker, 2) for worker in range(2)]
    assert np.array_equal(parts[0][0] + parts[1][0], alone) and np.array_equal(parts[0][1] + parts[1][1], truth)
    assert len(alone) == snapshot.splits["val"]["files"]
    loss: Any = lambda logits, targets: torch.zeros_like(logits)  # noqa: E731
    assert compute_val_metrics(alone, truth, loss) == compute_val_metrics(parts[0][0] + parts[1][0], truth, loss)


@pytest.mark.slow
def test_training_stops_early_without_val_improvement(built: Chain, tmp_path: Path) -> None:
    """Also covers moving average, accumulation, balancing, focal loss, and reading files instead of a cache."""
    options = (
        *("train.lr=1e-12", "train.patience=2", "train.epochs=9", "train.ema=0.5", "train.accumulate=3"),
        *("train.balance=0.2", "loss=focal", "feed.cache=none", "network.channels=3", "network.normalisation=imagenet"),
    )
    config = train_config(built, tmp_path, *FAST, *options)
    summary = run_quietly(train.run, config)
    aurocs = history(built.lake, config, summary.facts["run"], "val_macro_auroc")
    best = int(np.argmax(aurocs))
    assert len(aurocs) == best + 3 < 9
    assert summary.facts["best"]["epoch"] == best + 1
    registry = Registry(config.tracking, built.lake)
    bundle = registry.load("1").bundle
    assert [len(member.mean) for member in bundle.card.members] == [3]
    assert bundle.card.provenance["pos_weight"] == [1.0] * len(bundle.card.findings)


class Deaf(UserCallback):
    """Stands for a listener that died before it heard anything."""

    def __init__(self, *_: Any) -> None:
        pass


@pytest.mark.slow
def test_epoch_whose_report_nobody_heard_is_reported_again(
    built: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None, screen: Screen
) -> None:
    """The run resumes with nothing left to train, and a third time with nothing left to log."""
    config, snapshot = train_config(built, tmp_path, *FAST, "train.epochs=1"), built.lake.find_snapshot()
    build_pixel_cache(built.lake, snapshot, 64, screen)
    registry = Registry(config.tracking, built.lake)
    registry.connect()
    run_id = mlflow.start_run().info.run_id
    mlflow.end_run()
    logged = []
    for listener in (Deaf, EpochMetricsLogger, EpochMetricsLogger):
        monkeypatch.setattr(trainer, "EpochMetricsLogger", listener)
        result = trainer.build_trainer(config, registry, snapshot, run_id).fit()
        logged.append(history(built.lake, config, run_id, "selection"))
    trainer.remove_checkpoints(built.lake, run_id)
    assert result.metrics is not None
    assert logged == [[], [result.metrics["selection"]], [result.metrics["selection"]]]


@pytest.mark.slow
def test_training_starts_from_weights_file(finished: Chain, tmp_path: Path) -> None:
    """With a learning rate near zero, the trained weights equal the loaded ones."""
    version = finished.summaries["train"].facts["model"].split()[-1]
    trained = Registry(finished.config.tracking, finished.lake).load(version).bundle
    trained.save(tmp_path / "bundle")
    weights = f"network.pretrained={tmp_path / 'bundle' / 'weights.safetensors'}"
    config = train_config(finished, tmp_path, weights, "train.epochs=1", "train.lr=1e-12", "train.weight_decay=0")
    summary = run_quietly(train.run, config)
    bundle = Registry(config.tracking, finished.lake).load("1").bundle
    assert bundle.card.split_known and len(bundle.seen_patients) == 2, (
        "its own patients, and those of its initial weights"
    )
    found, wanted = bundle.network.state_dict(), trained.network.state_dict()
    convolutions = [name for name in wanted if name.startswith("backbone") and "conv" in name]
    assert len(convolutions) > 100
    for name in convolutions:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=0)
    report = mlflow.artifacts.load_dict(f"runs:/{summary.facts['run']}/pretrained.json")
    assert report["taken"] == report["total"] > 600


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("train.workers=3", "train.batch_size=32"), "train.batch_size=32: 32 images cannot be shared evenly by 3"),
        (("train.precision=fp16",), "train.precision=fp16 needs train.gpu=true"),
        (("network.backbone=densenet",), "network.backbone=densenet is not a timm model"),
        (("network.pretrained=/nowhere/weights.pth",), "network.pretrained=/nowhere/weights.pth"),
        (("train.gpu=true",), "train.gpu=true with train.workers=1: this machine has 0 GPUs"),
        (("train.workers=8",), "train.workers=8 .* set cluster.cpus=10, it is 8"),
        (("train.resume=abc",), "train.resume=abc: .* has no such run"),
    ],
)
def test_user_mistake_is_reported_in_one_line(built: Chain, tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        run_quietly(train.run, train_config(built, tmp_path, *words))
    assert "\n" not in str(caught.value)


def test_refuses_to_resume_finished_run(finished: Chain) -> None:
    run_id = finished.summaries["train"].facts["run"]
    resumed = finished.config.train.model_copy(update={"resume": run_id})
    with pytest.raises(UserError, match=f"train.resume={run_id} is finished"):
        run_quietly(train.run, finished.config.model_copy(update={"train": resumed}))
