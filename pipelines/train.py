"""Train the classifier on the newest snapshot, as one MLflow run.

Features: decode once into a pixel cache; Ray Data streams it into a Ray Train `TorchTrainer` (DDP over
`train.workers`); any timm backbone, from random, ImageNet's or a file's weights; bf16 or fp16 where the hardware has
it; metrics and a checkpoint each epoch and every few minutes; a lost worker or node goes on from the last one in the
same run, a lost driver with `train.resume=RUN_ID`; the best epoch's network is calibrated on val and registered.

Raises UserError: no lake, no build, no training images, an unusable backbone or file of weights, a batch that the
workers cannot share, more workers than there is room for, nothing to resume.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import mlflow
import ray
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pyarrow import fs
from ray.train import CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from chestai.cli.console import Screen
from chestai.cli.main import stage_command
from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import FORWARD_ENV
from chestai.model.pretrained import load_pretrained
from chestai.model.registry import Registry
from pipelines.cluster import check_room, ray_cluster, run_in_thread
from pipelines.data.label_policy import check_uncertain, pos_weight, train_targets, with_label_policy
from pipelines.data.pixel_cache import PixelCache, as_targets, pixel_cache, store_of, stored
from pipelines.data.sampler import lanes_for, repeat_factors
from pipelines.training.build import new_network, normalisation, triage_rule
from pipelines.training.loop import ProgressBoard, train_loop
from pipelines.training.register import best_epoch, register_best
from pipelines.training.tracking import EpochMetrics, log_curves, log_inputs


def run(config: Config, screen: Screen) -> Summary:
    """Train, or find that this very training has been done."""
    started = time.monotonic()
    lake = Lake(config.lake)
    registry = Registry(config.tracking, lake)
    before = None
    if config.train.resume is not None:
        before = _lost_run(registry, config.train.resume)
        config = _config_of(before, config)
    snapshot = lake.snapshot(before.data.params["snapshot"] if before is not None else None)
    check(config, lake, snapshot)
    recipe = recipe_id(config, snapshot)
    done = [] if config.force or before is not None else registry.finished_runs({"chestai.recipe": recipe})
    if done:
        facts = {
            "headline": f"already trained: run {done[0].info.run_id}",
            "run": done[0].info.run_id,
            "snapshot": snapshot.snapshot_id,
        }
        summary = Summary("train", 0, "images", time.monotonic() - started, facts)
        summary.save(lake)
        return summary
    with ray_cluster(config.cluster):
        check_room(config.cluster, config.train.workers, config.train.gpu)
        if config.feed.cache == "pixels":
            pixel_cache(lake, snapshot, config.network.size, screen)
        decoded = time.monotonic()
        result, run_id, version = _tracked(config, screen, registry, snapshot, recipe, before)
    metrics, best = result.metrics or {}, best_epoch(result)
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
        "unread_images": PixelCache(lake, snapshot, config.network.size).unread()
        if config.feed.cache == "pixels"
        else 0,
    }
    rows = snapshot.splits["train"]["files"] * metrics["epoch"]
    summary = Summary("train", rows, "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def recipe_id(config: Config, snapshot: Snapshot) -> str:
    """What a training depends on, in 12 hex digits: the same ID, the same network."""
    plain = config.plain()
    chosen = {
        "snapshot": snapshot.snapshot_id,
        **{name: plain[name] for name in ("network", "loss", "augment", "train")},
    }
    for survival in ("resume", "max_failures", "checkpoint_minutes"):
        del chosen["train"][survival]
    if chosen["train"]["uncertainty"] is None:  # so that what was trained before there was this key stays found
        del chosen["train"]["uncertainty"]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]


def check(config: Config, lake: Lake, snapshot: Snapshot) -> None:
    """Raise `UserError` for what can be seen to be impossible before anything is started."""
    triage_rule(config, snapshot.vocabulary)
    check_uncertain(lake, snapshot, config.train.uncertainty)
    for split in ("train", "val"):
        if snapshot.splits.get(split, {}).get("files", 0) == 0:
            raise UserError(f"snapshot {snapshot.snapshot_id} has no frontal {split} image with a file to learn from")
    settings = config.train
    try:
        lanes = lanes_for(settings.batch_size, settings.workers)
    except ValueError as error:
        raise UserError(f"train.batch_size={settings.batch_size}: {error}") from error
    if settings.workers > 1 and snapshot.splits["train"]["files"] < lanes:
        raise UserError(f"train.workers={settings.workers} is too many for {snapshot.splits['train']['files']} images")
    if settings.precision == "fp16" and not settings.gpu:
        raise UserError("train.precision=fp16 needs train.gpu=true: on the CPU take bf16, fp32 or auto")


def _lost_run(registry: Registry, run_id: str) -> Run:
    """The run to go on with, which has a checkpoint and is not finished."""
    try:
        found = registry.connect().get_run(run_id)
    except MlflowException as error:
        raise UserError(f"train.resume={run_id}: {registry.uri} has no such run") from error
    if found.data.tags.get("chestai.stage") != "train":
        raise UserError(f"train.resume={run_id} is not a run of pipelines.train")
    if found.info.status == "FINISHED":
        raise UserError(f"train.resume={run_id} is finished: there is nothing to resume")
    if not _has_checkpoint(registry.lake, run_id):
        raise UserError(f"train.resume={run_id} left no checkpoint in {registry.lake.uri('runs', run_id)}: train anew")
    return found


def _config_of(run: Run, now: Config) -> Config:
    """A lost run's own settings; where it runs and how it survives are as told now."""
    before = conf.validate(mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/config.json"))
    kept = {name: getattr(now.train, name) for name in ("resume", "max_failures", "checkpoint_minutes")}
    places = {name: getattr(now, name) for name in ("lake", "tracking", "cluster", "force")}
    return before.model_copy(update={**places, "train": before.train.model_copy(update=kept)})


def _tracked(
    config: Config, screen: Screen, registry: Registry, snapshot: Snapshot, recipe: str, before: Run | None
) -> tuple[Result, str, int]:
    """Train inside one MLflow run, which ends FINISHED, FAILED or KILLED, never left RUNNING."""
    with _mlflow_run(registry, screen, snapshot, recipe, before) as run_id:
        if before is None:
            log_inputs(config, snapshot, registry.lake)
        board: Any = ray.remote(num_cpus=0)(ProgressBoard).remote()
        trainer = build_trainer(config, registry, snapshot, run_id, board=board, screen=screen)
        result = _watched(trainer, board, screen, snapshot.splits["train"]["files"] * config.train.epochs)
        log_curves(registry, run_id)
        version = register_best(config, registry, snapshot, result, run_id)
    forget(registry.lake, run_id)
    return result, run_id, version


@contextlib.contextmanager
def _mlflow_run(
    registry: Registry, screen: Screen, snapshot: Snapshot, recipe: str, before: Run | None
) -> Iterator[str]:
    """A run, new or gone on with; one that breaks off keeps its checkpoints, and says how to go on."""
    client = registry.connect()
    tags = {"chestai.recipe": recipe, "chestai.snapshot": snapshot.snapshot_id, "chestai.stage": "train"}
    chosen = {"run_id": before.info.run_id} if before is not None else {"run_name": f"train-{recipe}", "tags": tags}
    run_id = ""
    try:
        with mlflow.start_run(**chosen, log_system_metrics=True) as active:
            run_id = active.info.run_id
            yield run_id
    except BaseException as error:
        if run_id and isinstance(error, KeyboardInterrupt):
            client.set_terminated(run_id, "KILLED")  # MLflow calls every exception a failure
        if _has_checkpoint(registry.lake, run_id):
            screen.say(f"train: to go on from the last checkpoint: lake={registry.lake.root} train.resume={run_id}")
        else:
            forget(registry.lake, run_id)
        raise


def build_trainer(
    config: Config,
    registry: Registry,
    snapshot: Snapshot,
    run_id: str,
    callbacks: Sequence[UserCallback] = (),
    board: Any = None,
    screen: Screen | None = None,
) -> TorchTrainer:
    """The training job of one MLflow run, for this stage and for the trials of a sweep.

    Its files live in `runs/<run_id>` of the lake until `forget` removes them; a job of the same run goes on from there.
    """
    lake, settings = registry.lake, config.train
    network = new_network(config, snapshot)
    loaded = load_pretrained(network, config.network.pretrained)
    if config.network.pretrained != "none" and screen is not None:
        screen.say(f"train: initial weights from {loaded.line()}")
        mlflow.log_dict(vars(loaded), "pretrained.json", run_id=run_id)
    targets, repeats = train_targets(lake, snapshot, settings.uncertainty), None
    if settings.balance is not None:
        known = as_targets(stored(lake, snapshot, "train")["targets"]) if targets is None else targets
        repeats = ray.put(repeat_factors(known, settings.balance))
    cached = config.feed.cache == "pixels"
    mean, std = normalisation(config, snapshot)
    job = {
        "config": config.plain(),
        "findings": len(snapshot.vocabulary),
        "pos_weight": list(pos_weight(snapshot, targets)),
        "mean": mean,
        "std": std,
        "weights": ray.put(network.state_dict()),
        "train": with_label_policy(store_of(lake, snapshot, config.network.size, "train", cached), targets),
        "val": store_of(lake, snapshot, config.network.size, "val", cached),
        "repeats": repeats,
        "board": board,
    }
    # Logical CPUs: one a worker leaves room for the tasks that feed it; torch takes the real cores by itself.
    return TorchTrainer(
        train_loop,
        train_loop_config=job,
        scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=settings.gpu),
        run_config=RunConfig(
            name=run_id,
            storage_path=lake.uri("runs"),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="selection"),
            worker_runtime_env={"env_vars": FORWARD_ENV},  # type: ignore[call-arg]
            callbacks=[EpochMetrics(registry, run_id), *callbacks],  # type: ignore[list-item]
        ),
    )


def forget(lake: Lake, run_id: str) -> None:
    """Remove a run's checkpoints: its bundle holds what is worth keeping."""
    filesystem, folder = lake.filesystem("runs", run_id)
    if run_id and filesystem.get_file_info(folder).type == fs.FileType.Directory:
        filesystem.delete_dir(folder)


def _has_checkpoint(lake: Lake, run_id: str) -> bool:
    filesystem, folder = lake.filesystem("runs", run_id)
    names = [one.base_name for one in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))]
    return bool(run_id) and any(name.startswith("checkpoint") for name in names)


def _watched(trainer: TorchTrainer, board: Any, screen: Screen, total: int) -> Result:
    """`trainer.fit`, with its progress on the screen."""
    with screen.progress("train", total, "images") as progress:

        def look() -> None:
            share, note = ray.get(board.read.remote())
            progress.update(round(share * total), note)

        return run_in_thread(trainer.fit, look)


if __name__ == "__main__":
    stage_command("pipelines.train", run)
