"""What a training run logs to MLflow: its inputs, the metrics of each epoch, curves."""

import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from ray.train import UserCallback

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from chestai.lake.snapshot import Snapshot
from chestai.model.registry import Registry
from chestai.pages.training_curves import plot_training_curves

PACKAGES = ("ray", "raydp", "pyspark", "torch", "timm", "mlflow", "pyarrow", "deltalake")
CURVES = ("train_loss", "val_loss", "val_macro_auroc", "lr", "images_per_s", "wait_share")


def log_inputs(config: Config, snapshot: Snapshot, lake: Lake) -> None:
    """Logs settings, package versions and the dataset to the active run."""
    plain = config.plain()
    sections = ("network", "loss", "augment", "feed", "train", "distil", "split")
    flat = {f"{part}.{name}": value for part in sections for name, value in plain[part].items()}
    mlflow.log_params(
        {
            **flat,
            **{f"package.{name}": number for name, number in list_package_versions().items()},
            "snapshot": snapshot.snapshot_id,
            "source": snapshot.source,
            "commit": find_git_commit(),
        }
    )
    source = DeltaDatasetSource(path=lake.uri(IMAGES), delta_table_version=snapshot.versions[IMAGES])
    dataset = MetaDataset(source, name=snapshot.source, digest=snapshot.snapshot_id)  # type: ignore[abstract]
    mlflow.log_input(dataset, context="training")
    mlflow.log_dict(plain, "config.json")


class EpochMetricsLogger(UserCallback):
    """Logs the metrics of an epoch from Ray Train's controller, so that workers need no access to MLflow's database.

    An epoch that is reported again is logged once.
    """

    def __init__(self, registry: Registry, run_id: str) -> None:
        self.registry, self.run_id = registry, run_id

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        reported = metrics[0]
        if "val_loss" not in reported:
            return  # a checkpoint within an epoch
        client = self.registry.connect()
        if reported["epoch"] <= client.get_run(self.run_id).data.metrics.get("epoch", 0):
            return
        now = int(time.time() * 1000)
        values = [Metric(name, float(value), now, reported["epoch"]) for name, value in reported.items()]
        client.log_batch(self.run_id, metrics=values)


def log_curves(registry: Registry, run_id: str) -> None:
    """Plots the metrics of all epochs into the run, as plots/training.png."""
    client = registry.connect()
    histories = {
        name: {point.step: point.value for point in client.get_metric_history(run_id, name)} for name in CURVES
    }
    mlflow.log_figure(plot_training_curves(histories), "plots/training.png")


def list_package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: version(name) for name in PACKAGES}


def find_git_commit() -> str:
    """The git commit of this code, with `+` if files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()
