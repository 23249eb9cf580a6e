"""The Ray Train job of one MLflow run, for the training stage and for the trials of a sweep."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import ray
from pyarrow import fs
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from chestai.config.schema import Config, Ldam
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import FORWARD_ENV
from chestai.model.classifier import Classifier
from chestai.model.pretrained.loading import load_pretrained
from chestai.model.registry import Registry
from pipelines.data.label_policy import apply_policy, compute_pos_weight, count_positives, relabel_store
from pipelines.data.pixel_cache import open_store, read_split_rows, to_targets
from pipelines.data.sampler import compute_repeat_factors
from pipelines.training.build import build_network, choose_normalisation
from pipelines.training.loop import TrainJob, train_loop
from pipelines.training.teacher import add_lessons
from pipelines.training.tracking import EpochMetricsLogger


def build_trainer(
    config: Config,
    registry: Registry,
    snapshot: Snapshot,
    run_id: str,
    network: Classifier | None = None,
    callbacks: Sequence[UserCallback] = (),
    board: Any = None,
) -> TorchTrainer:
    """Builds the training job of an MLflow run.

    Its files lie in `runs/<run_id>` of the lake until `remove_checkpoints`; a job of the same run resumes from them.

    Args:
        network: With its initial weights; None: made and loaded from the config.
        board: A `ProgressBoard` actor that shows the progress, or None.
    """
    if network is None:
        network = build_network(config, snapshot)
        load_pretrained(network, config.network.pretrained)
    job = make_train_job(config, registry.lake, snapshot, network, board)
    return TorchTrainer(
        train_loop,
        train_loop_config=vars(job),
        # One logical CPU per worker leaves room for the tasks that feed it; torch takes the real cores by itself.
        scaling_config=ScalingConfig(
            num_workers=config.train.workers,  # type: ignore[arg-type]
            use_gpu=config.train.gpu,
        ),
        run_config=RunConfig(
            name=run_id,
            storage_path=registry.lake.uri("runs"),
            failure_config=FailureConfig(max_failures=config.train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="selection"),
            worker_runtime_env={"env_vars": FORWARD_ENV},  # type: ignore[call-arg]
            callbacks=[EpochMetricsLogger(registry, run_id), *callbacks],  # type: ignore[list-item]
        ),
    )


def make_train_job(config: Config, lake: Lake, snapshot: Snapshot, network: Classifier, board: Any = None) -> TrainJob:
    """Everything a worker needs; large arrays go into Ray's object store."""
    settings, cached = config.train, config.feed.cache == "pixels"
    targets, repeats = apply_policy(lake, snapshot, settings.uncertainty), None
    if settings.balance is not None:
        balanced = to_targets(read_split_rows(lake, snapshot, "train")["targets"]) if targets is None else targets
        repeats = ray.put(compute_repeat_factors(balanced, settings.balance))
    mean, std = choose_normalisation(config, snapshot)
    lessons = add_lessons(config, lake, snapshot, targets)
    train = relabel_store(open_store(lake, snapshot, config.network.size, "train", cached), lessons)
    val = open_store(lake, snapshot, config.network.size, "val", cached)
    if cached and not isinstance(settings.workers, int):
        # Ray may give such a training's workers every core that is up; tasks that waited for one would wait forever.
        train, val = (dataclasses.replace(store, task_cpus=0.0) for store in (train, val))  # type: ignore[type-var]
    return TrainJob(
        config=config.plain(),
        findings=len(snapshot.vocabulary),
        pos_weight=list(compute_pos_weight(snapshot, targets)),
        positives=list(count_positives(snapshot, targets)) if isinstance(config.loss, Ldam) else [],
        mean=mean,
        std=std,
        weights=ray.put(network.state_dict()),
        train=train,
        val=val,
        repeats=repeats,
        board=board,
    )


def remove_checkpoints(lake: Lake, run_id: str) -> None:
    """Deletes a run's checkpoints: its bundle holds what is worth keeping."""
    filesystem, folder = lake.filesystem("runs", run_id)
    if run_id and filesystem.get_file_info(folder).type == fs.FileType.Directory:
        filesystem.delete_dir(folder)


def has_checkpoint(lake: Lake, run_id: str) -> bool:
    """Whether a run left a checkpoint from which it can be resumed."""
    filesystem, folder = lake.filesystem("runs", run_id)
    names = [entry.base_name for entry in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))]
    return bool(run_id) and any(name.startswith("checkpoint") for name in names)
