"""Trains the classifier on the newest snapshot, as one MLflow run.

Decodes once into a pixel cache; Ray Data streams it into a Ray Train `TorchTrainer` (DDP over `train.workers`). Any
timm backbone, with random, ImageNet's or a file's weights; bf16 or fp16 where the hardware has it. Metrics and a
checkpoint after each epoch, and a checkpoint every few minutes: training survives a lost worker or node in the same
run, and a lost driver with `train.resume=RUN_ID`. The best epoch's network is calibrated on val and registered.
`distil.teacher=` adds what registered versions think of the images to the labels; `train.seeds=3` trains three times.

Raises UserError: no lake, no build, no training images, an unusable backbone or weights file, a batch that the workers
cannot share, more workers than there is room for, nothing to resume.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlflow
import ray
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from ray.train import Result
from ray.train.torch import TorchTrainer

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.config.schema import Config, Section
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.pretrained.files import check_weights
from chestai.model.pretrained.loading import load_pretrained
from chestai.model.registry import Registry
from pipelines.cluster import check_capacity, ray_cluster, run_in_thread
from pipelines.data.label_policy import check_uncertain_labels
from pipelines.data.pixel_cache import PixelCache, build_pixel_cache
from pipelines.data.sampler import choose_lanes
from pipelines.training.build import build_network, make_triage_rule
from pipelines.training.progress import ProgressBoard
from pipelines.training.register import register_best, summarise_best_epoch
from pipelines.training.seeds import train_seeds
from pipelines.training.teacher import ask_teacher, pin_teacher
from pipelines.training.tracking import log_curves, log_inputs
from pipelines.training.trainer import build_trainer, has_checkpoint, remove_checkpoints

SURVIVAL = ("resume", "max_failures", "checkpoint_minutes", "seeds")  # keys of `train` that do not change the network


@dataclass(frozen=True)
class Training:
    """One training. resumed: the lost MLflow run to go on with, or None for a new one."""

    config: Config
    screen: Screen
    registry: Registry
    snapshot: Snapshot
    resumed: Run | None

    @property
    def lake(self) -> Lake:
        return self.registry.lake

    @property
    def images(self) -> int:
        """Train images of one epoch."""
        return int(self.snapshot.splits["train"]["files"])


def run(config: Config, screen: Screen) -> Summary:
    """Trains, or finds that this training is already done; with `train.seeds` above 1, several times."""
    if config.train.seeds > 1:
        summary = train_seeds(config, screen, run)
        summary.save(Lake(config.lake))
        return summary
    started = time.monotonic()
    lake = Lake(config.lake)
    registry, resumed = Registry(config.tracking, lake), None
    if config.train.resume is not None:
        resumed = _find_lost_run(registry, config.train.resume)
        config = _merge_resumed_config(resumed, config)
    snapshot = lake.find_snapshot(resumed.data.params["snapshot"] if resumed is not None else None)
    config = pin_teacher(config, registry)
    check_feasible(config, lake, snapshot)
    done = _find_finished_run(config, registry, snapshot) if resumed is None else None
    if done is not None:
        facts = {"headline": f"already trained: run {done}", "run": done, "snapshot": snapshot.snapshot_id}
        summary = Summary("train", 0, "images", time.monotonic() - started, facts)
    else:
        summary = _train(Training(config, screen, registry, snapshot, resumed), started)
    summary.save(lake)
    return summary


def compute_recipe_id(config: Config, snapshot: Snapshot) -> str:
    """Everything that a training depends on, in 12 hex digits: the same ID, the same network."""
    chosen: dict[str, Any] = {"snapshot": snapshot.snapshot_id}
    for name in ("network", "loss", "augment", "train"):
        section: Section = getattr(config, name)
        fields = type(section).model_fields
        chosen[name] = {
            key: value
            for key, value in section.model_dump(mode="json").items()
            # Keys with a default are younger than the others: at it, runs from before they existed are still found.
            if fields[key].is_required() or getattr(section, key) != fields[key].default
        }
    for key in SURVIVAL:
        chosen["train"].pop(key, None)
    if config.distil.teacher is not None:
        chosen["distil"] = config.distil.model_dump(mode="json")
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]


def check_feasible(config: Config, lake: Lake, snapshot: Snapshot) -> None:
    """Raises `UserError` for anything impossible that can be seen before Ray starts."""
    make_triage_rule(config, snapshot.vocabulary)
    check_weights(config.network.pretrained)
    check_uncertain_labels(lake, snapshot, config.train.uncertainty)
    for split in ("train", "val"):
        if snapshot.splits.get(split, {}).get("files", 0) == 0:
            raise UserError(f"snapshot {snapshot.snapshot_id} has no frontal {split} image with a file to learn from")
    settings = config.train
    try:
        lanes = choose_lanes(settings.batch_size, settings.most_workers)
    except ValueError as error:
        raise UserError(f"train.batch_size={settings.batch_size}: {error}") from error
    if settings.most_workers > 1 and snapshot.splits["train"]["files"] < lanes:
        images = snapshot.splits["train"]["files"]
        raise UserError(f"train.workers={settings.most_workers} is too many for {images} images")
    if settings.precision == "fp16" and not settings.gpu:
        raise UserError("train.precision=fp16 needs train.gpu=true: on the CPU take bf16, fp32 or auto")


def _find_finished_run(config: Config, registry: Registry, snapshot: Snapshot) -> str | None:
    """The ID of a finished run of the same recipe; None with `force`."""
    if config.force:
        return None
    runs = registry.finished_runs({"chestai.recipe": compute_recipe_id(config, snapshot)})
    return str(runs[0].info.run_id) if runs else None


def _find_lost_run(registry: Registry, run_id: str) -> Run:
    """The unfinished run to resume. Raises `UserError` where there is none with a checkpoint."""
    try:
        found = registry.connect().get_run(run_id)
    except MlflowException as error:
        raise UserError(f"train.resume={run_id}: {registry.uri} has no such run") from error
    if found.data.tags.get("chestai.stage") != "train":
        raise UserError(f"train.resume={run_id} is not a run of pipelines.train")
    if found.info.status == "FINISHED":
        raise UserError(f"train.resume={run_id} is finished: there is nothing to resume")
    if not has_checkpoint(registry.lake, run_id):
        raise UserError(f"train.resume={run_id} left no checkpoint in {registry.lake.uri('runs', run_id)}: train anew")
    return found


def _merge_resumed_config(run: Run, now: Config) -> Config:
    """The lost run's own settings, except where it runs and how it survives, which are as configured now."""
    before = conf.validate(mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/config.json"))
    survival = {name: getattr(now.train, name) for name in SURVIVAL}
    environment = {name: getattr(now, name) for name in ("lake", "tracking", "cluster", "force")}
    return before.model_copy(update={**environment, "train": before.train.model_copy(update=survival)})


def _train(training: Training, started: float) -> Summary:
    config, snapshot = training.config, training.snapshot
    cached = config.feed.cache == "pixels"
    with ray_cluster(config.cluster):
        check_capacity(config.cluster, config.train.fewest_workers, config.train.gpu)
        if cached:
            build_pixel_cache(training.lake, snapshot, config.network.size, training.screen)
        ask_teacher(config, training.registry, snapshot, training.screen)
        decoded = time.monotonic()
        result, run_id, version = _fit_and_register(training)
    metrics, best = result.metrics or {}, summarise_best_epoch(result)
    facts = {
        "headline": f"val macro-AUROC {best['val_macro_auroc']:.3f}, run {run_id[:8]}",
        "run": run_id,
        "model": f"{config.tracking.model} version {version}",
        "snapshot": snapshot.snapshot_id,
        "network": f"{config.network.backbone} at {config.network.size} px",
        "epochs": metrics["epoch"],
        "best": best,
        "last": {name: metrics[name] for name in ("train_loss", "val_loss", "val_macro_auroc")},
        "speed": {name: metrics[name] for name in ("images_per_s", "wait_share")},
        "decode_seconds": round(decoded - started, 1),
        "unread_images": PixelCache(training.lake, snapshot, config.network.size).count_unread() if cached else 0,
    }
    return Summary("train", training.images * metrics["epoch"], "images", time.monotonic() - started, facts)


def _fit_and_register(training: Training) -> tuple[Result, str, int]:
    """Trains and registers inside one MLflow run, which ends FINISHED, FAILED or KILLED, never left RUNNING."""
    config, registry, snapshot = training.config, training.registry, training.snapshot
    with _mlflow_run(training) as run_id:
        if training.resumed is None:
            log_inputs(config, snapshot, registry.lake)
        network = build_network(config, snapshot)
        weights = load_pretrained(network, config.network.pretrained)
        if config.network.pretrained != "none":
            training.screen.say(f"train: initial weights from {weights.line()}")
            mlflow.log_dict(vars(weights), "pretrained.json", run_id=run_id)
        board: Any = ray.remote(num_cpus=0)(ProgressBoard).remote()
        trainer = build_trainer(config, registry, snapshot, run_id, network, board=board)
        result = _fit(trainer, board, training.screen, training.images * config.train.epochs)
        log_curves(registry, run_id)
        version = register_best(config, registry, snapshot, result, run_id)
    remove_checkpoints(registry.lake, run_id)
    return result, run_id, version


@contextlib.contextmanager
def _mlflow_run(training: Training) -> Iterator[str]:
    """A new or resumed run; one that breaks off keeps its checkpoints and prints how to resume."""
    registry, snapshot_id = training.registry, training.snapshot.snapshot_id
    client, recipe = registry.connect(), compute_recipe_id(training.config, training.snapshot)
    tags = {"chestai.recipe": recipe, "chestai.snapshot": snapshot_id, "chestai.stage": "train"}
    new = {"run_name": f"train-{recipe}", "tags": tags}
    run_id = ""
    try:
        chosen = new if training.resumed is None else {"run_id": training.resumed.info.run_id}
        with mlflow.start_run(**chosen, log_system_metrics=True) as active:
            run_id = active.info.run_id
            yield run_id
    except BaseException as error:
        if run_id and isinstance(error, KeyboardInterrupt):
            client.set_terminated(run_id, "KILLED")  # MLflow marks every exception FAILED
        if has_checkpoint(training.lake, run_id):
            training.screen.say(
                f"train: to go on from the last checkpoint: lake={training.lake.root} train.resume={run_id}"
            )
        else:
            remove_checkpoints(training.lake, run_id)
        raise


def _fit(trainer: TorchTrainer, board: Any, screen: Screen, total: int) -> Result:
    """`trainer.fit`, with its progress on the screen. total: images of all epochs."""
    with screen.progress("train", total, "images") as progress:

        def show() -> None:
            share, note = ray.get(board.read.remote())
            progress.update(round(share * total), note)

        return run_in_thread(trainer.fit, show)


if __name__ == "__main__":
    run_stage_command("pipelines.train", run)
