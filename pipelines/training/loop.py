"""The training loop that every worker runs, in a training and in the trials of a sweep."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from ray.train.torch import get_device
from torch import Tensor

from chestai.config import load as conf
from chestai.metrics.bootstrap import Bootstrap
from chestai.metrics.predictions import Predictions
from chestai.metrics.report import measure_performance
from chestai.model.bundle import forward
from chestai.model.classifier import Classifier
from chestai.model.losses import make_loss, masked_mean
from pipelines.data.loader import prefetch, stream_epoch, stream_split
from pipelines.data.pixel_cache import ImageStore
from pipelines.data.sampler import EpochOrder, make_epoch_order
from pipelines.training.build import make_classifier
from pipelines.training.learner import Learner
from pipelines.training.progress import BoardReporter, EpochTimer, TrainingProgress

STATE_FILE = "state.pt"
CHECKPOINT_CHECK_STEPS = 10  # steps between the points where workers agree whether to write a checkpoint


@dataclass(frozen=True)
class TrainJob:
    """What a worker needs, as plain values and object references: Ray passes it on as a dict.

    Attributes:
        config: The plain `Config`.
        findings: Their number F.
        pos_weight: Weight of positives per finding, F values.
        positives: Train images with the finding, F values; empty unless the loss needs them.
        mean, std: Per input channel.
        weights: Reference to the initial state dict of the network.
        train, val: The images of the two splits.
        repeats: Reference to float32 (N,), how often each train image comes; or None.
        board: A `ProgressBoard` actor, or None.
    """

    config: dict[str, Any]
    findings: int
    pos_weight: list[float]
    positives: list[int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: ray.ObjectRef
    train: ImageStore
    val: ImageStore
    repeats: ray.ObjectRef | None = None
    board: Any = None


class Worker:
    """One worker's part of a training: its learner, its share of the data, its clock for checkpoints."""

    def __init__(self, job: TrainJob) -> None:
        self.job, self.config = job, conf.validate(job.config)
        context = ray.train.get_context()
        self.workers, self.rank = context.get_world_size(), context.get_world_rank()
        _use_cores(context.get_local_world_size(), self.config.train.gpu)
        torch.manual_seed(self.config.train.seed)
        self.repeats = ray.get(job.repeats) if job.repeats is not None else None
        self.device = get_device()
        steps = self.order(0).steps * self.config.train.epochs
        self.learner = Learner(
            self.config, self._network(), torch.tensor(job.pos_weight), torch.tensor(job.positives), steps
        )
        self.checkpointed_at = time.monotonic()

    def _network(self) -> Classifier:
        job = self.job
        network = make_classifier(self.config.network, job.findings, job.mean, job.std)
        network.load_state_dict(ray.get(job.weights))
        return network.to(self.device)

    def order(self, number: int) -> EpochOrder:
        """The order of images in an epoch."""
        store, settings = self.job.train, self.config.train
        return make_epoch_order(
            store.shards, store.size, settings.batch_size, settings.most_workers, settings.seed, number, self.repeats
        )

    def run_epoch(self, progress: TrainingProgress) -> dict[str, Any]:
        """Trains the rest of the current epoch; returns its training metrics, the same on every worker."""
        order, timer = self.order(progress.epoch), EpochTimer()
        reporter = BoardReporter(self.job.board if self.rank == 0 else None, self.config.train.epochs)
        start = [progress.losses, progress.labels] if self.rank == 0 else [0.0, 0.0]
        totals = torch.tensor(start, device=self.device)
        batches = _move_to_device(
            stream_epoch(self.job.train, order, self.rank, self.workers, progress.step), self.device
        )
        for batch, pixels, targets in timer.measure_waits(prefetch(batches)):
            totals += self.learner.step(pixels, targets, batch.share, progress.epoch)
            progress.step = batch.share.step + 1
            timer.images += batch.share.total
            reporter.report_step(progress, order.steps, totals, timer)
            if progress.step % CHECKPOINT_CHECK_STEPS == 0 and progress.step < order.steps and self._checkpoint_due():
                progress.losses, progress.labels = _sum_over_workers(totals).tolist()
                self.report({"epoch": progress.epoch, "step": progress.step}, progress)
        assert progress.step == order.steps, f"worker {self.rank} saw {progress.step} of {order.steps} steps"
        losses, labels = _sum_over_workers(totals).tolist()
        return {
            "epoch": progress.epoch + 1,
            "train_loss": losses / max(labels, 1.0),
            "workers": self.workers,
            "lr": self.learner.schedule.get_last_lr()[0],
            **timer.metrics(),
        }

    def validate(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The val metrics of the network as it is, and its logits and targets for the checkpoint."""
        batch_size = self.config.evaluate.batch_size
        logits, targets = compute_val_logits(self.learner.best, self.job.val, batch_size, self.rank, self.workers)
        balance = torch.tensor(self.job.pos_weight), torch.tensor(self.job.positives)
        metrics = compute_val_metrics(logits, targets, make_loss(self.config.loss, *balance))
        return metrics, {"logits": torch.from_numpy(logits), "targets": torch.from_numpy(targets)}

    def report(self, metrics: dict[str, Any], progress: TrainingProgress, val: dict[str, Tensor] | None = None) -> None:
        """Reports metrics, from rank 0 with a checkpoint: learner, progress, metrics, the best network's val logits.

        All workers must call it equally often, because Ray waits for each of them.
        """
        if self.rank != 0:
            ray.train.report(metrics)
        else:
            best = self.learner.best.state_dict()
            state = {**self.learner.state(), "progress": vars(progress), "metrics": metrics, "best": best, "val": val}
            with tempfile.TemporaryDirectory() as folder:
                torch.save(state, Path(folder) / STATE_FILE)
                ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
        self.checkpointed_at = time.monotonic()

    def _checkpoint_due(self) -> bool:
        """Whether `train.checkpoint_minutes` have passed on rank 0; the same answer on every worker."""
        due = time.monotonic() - self.checkpointed_at > 60 * self.config.train.checkpoint_minutes
        if not (dist.is_initialized() and dist.get_world_size() > 1):
            return due
        flag = torch.tensor([float(due)], device=self.device)
        dist.broadcast(flag, src=0)
        return bool(flag.item())


def train_loop(job: dict[str, Any]) -> None:
    """Trains one network and reports metrics and a checkpoint after each epoch.

    Metrics of an epoch: epoch, train_loss, val_loss, val_macro_auroc (NaN where no finding of val has positives and
    negatives), selection (the best epoch has the highest), images_per_s, wait_share (of the time, for data), workers,
    lr.
    Within an epoch it reports a checkpoint every `train.checkpoint_minutes`, with epoch and step alone. If it resumes
    from the checkpoint of an epoch, it reports that epoch again: whoever listened may have died before it heard.

    Args:
        job: The fields of `TrainJob`.
    """
    worker = Worker(TrainJob(**job))
    settings, progress = worker.config.train, _resume(worker.learner)
    while progress.epoch < settings.epochs and not (settings.patience and progress.since >= settings.patience):
        metrics = worker.run_epoch(progress)
        val, outputs = worker.validate()
        progress = progress.after_epoch(val["selection"])
        if worker.rank == 0:
            BoardReporter(worker.job.board, settings.epochs).report_val(val["val_macro_auroc"])
        worker.report({**metrics, **val}, progress, outputs)


def compute_val_logits(
    network: Classifier, store: ImageStore, batch_size: int, rank: int, workers: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and targets, float32 (N, F), of the whole val set in storage order, on every worker.

    Each worker computes its share, in batches that are the same for any number of workers.
    """
    network.eval()
    findings = len(network.bias)
    both = torch.zeros((2, sum(store.shards), findings))
    for rows, pixels, targets in stream_split(store, batch_size, rank, workers):
        both[0, rows] = torch.from_numpy(forward(network, np.ascontiguousarray(pixels))[0])
        both[1, rows] = torch.from_numpy(targets.copy())
    device = next(network.parameters()).device
    logits, truth = _sum_over_workers(both.to(device)).cpu().numpy()  # rows of other workers are 0
    return logits, truth


def compute_val_metrics(logits: NDArray[np.float32], targets: NDArray[np.float32], loss: Any) -> dict[str, float]:
    """Loss, macro-AUROC, and `selection`, by which the best epoch is chosen, of (N, F) logits and targets."""
    mean = float(masked_mean(loss(torch.from_numpy(logits), torch.from_numpy(targets)), torch.from_numpy(targets)))
    findings = [str(column) for column in range(targets.shape[1])]
    predictions = Predictions.of(targets, logits, np.arange(len(targets)), findings)
    macro = measure_performance(predictions, Bootstrap(resamples=0)).macro_auroc.value
    return {"val_loss": mean, "val_macro_auroc": macro, "selection": -mean if np.isnan(macro) else macro}


def _move_to_device(batches: Iterator[Any], device: torch.device) -> Iterator[Any]:
    """Each batch with its pixels and targets on the device; the copy runs while the previous batch is used."""
    for batch in batches:
        pixels, targets = torch.from_numpy(batch.pixels), torch.from_numpy(batch.targets)
        if device.type == "cuda":
            pixels, targets = pixels.pin_memory(), targets.pin_memory()
        yield batch, pixels.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def _sum_over_workers(values: Tensor) -> Tensor:
    """The sum over workers."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def _use_cores(local_workers: int, gpu: bool) -> None:
    """Shares the machine's cores among its workers, because Ray limits OpenMP to a worker's logical CPUs."""
    if gpu:
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_workers))


def _resume(learner: Learner) -> TrainingProgress:
    """If this is a restart, loads the newest checkpoint into the learner and reports its epoch again.

    Returns:
        How far the training is.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return TrainingProgress()
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE_FILE, map_location=learner.device, weights_only=True)
    learner.load(state)
    if "val_loss" in state.get("metrics", {}):  # not in checkpoints of earlier versions, nor within an epoch
        ray.train.report(state["metrics"])
    return TrainingProgress(**state["progress"])
