"""Train the classifier on the newest snapshot, as one MLflow run.

Features: decode once into a pixel cache; Ray Data streams it into a Ray Train `TorchTrainer` (DDP over
`train.workers`); BCE with the ETL's pos_weight; bf16 where the hardware has it; metrics and a checkpoint each epoch; a
lost worker resumes from the last one in the same run; the best epoch's weights are logged as a bundle.

Raises UserError: no lake, no build, no training images, an unknown backbone, too few GPUs.
"""

import hashlib
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import ray
import ray.train
import timm
import torch
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from pyarrow import fs
from ray.train import CheckpointConfig, DataConfig, FailureConfig, Result, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from chestai.bundle import FORWARD_ENV, Bundle, Card
from chestai.calibration import Calibration
from chestai.command import Summary, as_command
from chestai.config import Config
from chestai.errors import UserError
from chestai.findings import KNOWN
from chestai.lake import IMAGES, Lake, Snapshot
from chestai.network import Classifier
from chestai.registry import BUNDLE, Registry
from chestai.screen import Screen
from chestai.triage import TriageRule
from pipelines.cluster import connected
from pipelines.feed import PixelCache, pixel_cache
from pipelines.trainloop import STATE, Board, train_loop

RETRIES = 3  # lost workers or nodes that a run survives

PACKAGES = ("ray", "raydp", "pyspark", "torch", "timm", "mlflow", "pyarrow", "deltalake")


def run(config: Config, screen: Screen) -> Summary:
    """Train, or find that this very training has been done."""
    started = time.monotonic()
    lake = Lake(config.lake)
    snapshot = lake.snapshot()
    registry = Registry(config.tracking, lake)
    _check(config, snapshot)
    recipe = recipe_id(config, snapshot)
    done = [] if config.force else registry.finished_runs({"chestai.recipe": recipe})
    if done:
        facts = {
            "headline": f"already trained: run {done[0].info.run_id}",
            "run": done[0].info.run_id,
            "snapshot": snapshot.snapshot_id,
        }
        summary = Summary("train", 0, "images", time.monotonic() - started, facts)
        summary.save(lake)
        return summary
    with connected(config.cluster):
        cache = pixel_cache(lake, snapshot, config.network.size, screen)
        decoded = time.monotonic()
        result, run_id = _tracked(config, screen, registry, snapshot, cache, recipe)
    metrics = result.metrics or {}
    facts = {
        "headline": f"val macro-AUROC {_best(result)['val_macro_auroc']:.3f}, run {run_id[:8]}",
        "run": run_id,
        "snapshot": snapshot.snapshot_id,
        "network": f"{config.network.backbone} at {config.network.size} px",
        "epochs": metrics["epoch"],
        "best": _best(result),
        "last": {name: metrics[name] for name in ("train_loss", "val_loss", "val_macro_auroc", "images_per_s")},
        "decode_seconds": round(decoded - started, 1),
        "unread_images": len(cache.unread),
    }
    rows = cache.rows("train") * config.train.epochs
    summary = Summary("train", rows, "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def recipe_id(config: Config, snapshot: Snapshot) -> str:
    """What a training depends on, in 12 hex digits: the same ID, the same network."""
    parts = {"snapshot": snapshot.snapshot_id, **config.plain()}
    chosen = {name: parts[name] for name in ("snapshot", "network", "train")}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]


def _check(config: Config, snapshot: Snapshot) -> None:
    if config.network.backbone not in timm.list_models():
        raise UserError(f"network.backbone={config.network.backbone} is not a timm model; densenet121 is the default")
    triage_rule(config, snapshot.vocabulary)
    for split in ("train", "val"):
        if snapshot.splits.get(split, {}).get("files", 0) == 0:
            raise UserError(f"snapshot {snapshot.snapshot_id} has no frontal {split} image with a file to learn from")


def triage_rule(config: Config, vocabulary: Sequence[str]) -> TriageRule:
    """The configured rule for a network of this vocabulary.

    Raises:
        UserError: a weight names no finding that is known, or none of those that the network sees.
    """
    for finding in config.triage.weights:
        if finding not in (*KNOWN, *vocabulary):
            raise UserError(f"triage.weights.{finding} is no finding of the snapshot: it has {', '.join(vocabulary)}")
    try:
        return config.triage.rule().within(vocabulary)
    except ValueError as error:
        names = ", ".join(vocabulary)
        raise UserError(
            f"triage.weights has none of the snapshot's findings: add a weight for one of {names}"
        ) from error


def _tracked(
    config: Config, screen: Screen, registry: Registry, snapshot: Snapshot, cache: PixelCache, recipe: str
) -> tuple[Result, str]:
    """Train inside one MLflow run, which ends FINISHED, FAILED or KILLED, never left RUNNING."""
    client = registry.connect()
    tags = {"chestai.recipe": recipe, "chestai.snapshot": snapshot.snapshot_id, "chestai.stage": "train"}
    run_id = ""
    try:
        with mlflow.start_run(run_name=f"train-{recipe}", tags=tags) as active:
            run_id = active.info.run_id
            mlflow.log_params(_parameters(config, snapshot))
            source = DeltaDatasetSource(path=cache.lake.uri(IMAGES), delta_table_version=snapshot.versions[IMAGES])
            dataset = MetaDataset(source, name=snapshot.source, digest=snapshot.snapshot_id)  # type: ignore[abstract]
            mlflow.log_input(dataset, context="training")
            mlflow.log_dict(config.plain(), "config.json")
            board: Any = ray.remote(num_cpus=0)(Board).remote()
            trainer = build_trainer(config, registry, snapshot, cache, run_id, board=board)
            result = _watched(trainer, board, screen, cache.rows("train") * config.train.epochs)
            with tempfile.TemporaryDirectory() as folder:
                _best_bundle(config, snapshot, result, run_id).save(Path(folder) / BUNDLE)
                mlflow.log_artifacts(str(Path(folder) / BUNDLE), BUNDLE)
    except KeyboardInterrupt:
        if run_id:
            client.set_terminated(run_id, "KILLED")  # MLflow calls every exception a failure
        raise
    finally:
        forget(cache.lake, run_id)
    return result, run_id


def build_trainer(
    config: Config,
    registry: Registry,
    snapshot: Snapshot,
    cache: PixelCache,
    run_id: str,
    callbacks: Sequence[UserCallback] = (),
    board: Any = None,
) -> TorchTrainer:
    """The training job of one MLflow run, for this stage and for the trials of a sweep.

    Its files live in `runs/<run_id>` of the lake until `forget` removes them.
    """
    job = {
        "config": config.plain(),
        "findings": len(snapshot.vocabulary),
        "pos_weight": list(snapshot.pos_weight),
        "mean": snapshot.pixel_mean,
        "std": snapshot.pixel_std,
        "rows": cache.rows("train"),
        "board": board,
    }
    # Logical CPUs: one a worker leaves room for the tasks that feed it; torch takes the real cores by itself.
    return TorchTrainer(
        train_loop,
        train_loop_config=job,
        datasets={"train": cache.stream("train"), "val": cache.stream("val")},
        dataset_config=DataConfig(datasets_to_split=["train"]),
        scaling_config=ScalingConfig(num_workers=config.train.workers, use_gpu=config.train.gpu),
        run_config=RunConfig(
            name=run_id,
            storage_path=cache.lake.uri("runs"),
            failure_config=FailureConfig(max_failures=RETRIES),
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="selection"),
            worker_runtime_env={"env_vars": FORWARD_ENV},  # type: ignore[call-arg]
            callbacks=[_MlflowCallback(registry, run_id), *callbacks],  # type: ignore[list-item]
        ),
    )


def forget(lake: Lake, run_id: str) -> None:
    """Remove a run's checkpoints: its bundle holds what is worth keeping."""
    filesystem, folder = lake.filesystem("runs", run_id)
    if run_id and filesystem.get_file_info(folder).type == fs.FileType.Directory:
        filesystem.delete_dir(folder)


def _watched(trainer: TorchTrainer, board: Any, screen: Screen, total: int) -> Result:
    """`trainer.fit` in a thread, while this one shows progress and stays open to Ctrl-C.

    In the main thread Ray Train would take over the interrupt signal and keep it after the training.
    """
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            outcome["result"] = trainer.fit()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    with screen.progress("train", total, "images") as progress:
        while thread.is_alive():
            thread.join(timeout=0.5)
            done, note = ray.get(board.read.remote())
            progress.update(done, note)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


class _MlflowCallback(UserCallback):
    """Logs an epoch's metrics from the controller, which sits beside the driver: workers need no database."""

    def __init__(self, registry: Registry, run_id: str) -> None:
        self.registry, self.run_id = registry, run_id

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        now = int(time.time() * 1000)
        values = [Metric(name, float(value), now, metrics[0]["epoch"]) for name, value in metrics[0].items()]
        self.registry.connect().log_batch(self.run_id, metrics=values)


def _best(result: Result) -> dict[str, Any]:
    """The metrics of the epoch whose checkpoint was kept as the best."""
    pairs = [(metrics, checkpoint) for checkpoint, metrics in result.best_checkpoints or []]
    best = max(pairs, key=lambda pair: pair[0]["selection"])[0]
    return {"epoch": best["epoch"], "val_macro_auroc": best["val_macro_auroc"], "val_loss": best["val_loss"]}


def _best_bundle(config: Config, snapshot: Snapshot, result: Result, run_id: str) -> Bundle:
    """The best epoch's network, calibrated by the prior correction alone until evaluation fits it on val."""
    checkpoint = result.get_best_checkpoint("selection", "max")
    assert checkpoint is not None
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
    findings = snapshot.vocabulary
    network = Classifier(config.network.backbone, len(findings), snapshot.pixel_mean, snapshot.pixel_std)
    network.load_state_dict(state["network"])
    weights = [min(weight, config.train.max_pos_weight) for weight in snapshot.pos_weight]
    rule = triage_rule(config, findings)
    card = Card(
        name=config.tracking.model,
        findings=findings,
        backbone=config.network.backbone,
        size=config.network.size,
        mean=snapshot.pixel_mean,
        std=snapshot.pixel_std,
        calibration=Calibration((1.0,) * len(weights), tuple(-math.log(one) for one in weights)).to_dict(),
        thresholds=dict.fromkeys(findings),
        triage=rule.to_dict(),
        snapshot=snapshot.snapshot_id,
        run_id=run_id,
        synthetic=snapshot.synthetic,
        provenance={
            "source": snapshot.source,
            "commit": _commit(),
            "python": sys.version.split()[0],
            "pos_weight": weights,
            "packages": {name: version(name) for name in PACKAGES},
        },
    )
    return Bundle(card, network.to(memory_format=torch.channels_last).eval())


def _parameters(config: Config, snapshot: Snapshot) -> dict[str, Any]:
    plain = config.plain()
    flat = {f"{part}.{name}": value for part in ("network", "train", "split") for name, value in plain[part].items()}
    packages = {f"package.{name}": version(name) for name in PACKAGES}
    return {
        **flat,
        **packages,
        "snapshot": snapshot.snapshot_id,
        "source": snapshot.source,
        "commit": _commit(),
    }


def _commit() -> str:
    """The git commit of this code, with a + where files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    found = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


if __name__ == "__main__":
    as_command("pipelines.train", run)
