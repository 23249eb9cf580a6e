"""What every training worker runs; the sweep launches the very same function."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device
from torch import Tensor

from chestai.config import load as conf
from chestai.metrics.report import evaluate
from chestai.model.bundle import forward
from chestai.model.classifier import Classifier
from chestai.model.losses import make_loss, masked_mean
from pipelines.data.loader import epoch, in_background, whole
from pipelines.data.pixel_cache import ImageStore
from pipelines.data.sampler import epoch_order
from pipelines.training.learner import Learner

STATE = "state.pt"
SHOW_EVERY_S = 0.5
ASK_EVERY = 10  # steps between looks at the clock on which workers must agree


@dataclass
class TrainingProgress:
    """How far the training is, as a checkpoint keeps it.

    epoch: epochs that are done. step: steps that are done of the next one. losses, labels: their sum so far in that
    epoch. best, since: the best `selection` and how many epochs ago it was.
    """

    epoch: int = 0
    step: int = 0
    losses: float = 0.0
    labels: float = 0.0
    best: float = -float("inf")
    since: int = 0


@dataclass
class EpochTimer:
    """Times of one epoch, in seconds, and the images of all workers."""

    started: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    images: int = 0

    def waiting(self, items: Iterator[Any]) -> Iterator[Any]:
        """The items; the time until each comes counts as waited."""
        while True:
            asked = time.monotonic()
            item = next(items, None)
            self.waited += time.monotonic() - asked
            if item is None:
                return
            yield item

    def metrics(self) -> dict[str, float]:
        seconds = time.monotonic() - self.started
        return {"images_per_s": self.images / seconds, "wait_share": self.waited / seconds}


def train_loop(job: dict[str, Any]) -> None:
    """Train one network, reporting metrics and a checkpoint each epoch.

    Args:
        job: `config` (plain `Config`), `findings` (their number), `pos_weight` (F,), `mean`, `std` (of the channels),
            `weights` (reference to the network's first state dict), `train`, `val` (`Store`), `repeats` (reference to
            float32 (N,) or None), `board` (an actor with `show`, or None).

    Reports per epoch: epoch, train_loss, val_loss, val_macro_auroc (NaN where val has no finding with positives and
    negatives), selection (what the best epoch is chosen by), images_per_s, wait_share (of the time, for data), lr.
    Between epochs it reports a checkpoint every `train.checkpoint_minutes`, with epoch and step alone.
    """
    config = conf.validate(job["config"])
    settings, board = config.train, job["board"]
    store: ImageStore = job["train"]
    context = ray.train.get_context()
    workers, rank = context.get_world_size(), context.get_world_rank()
    _use_cores(context.get_local_world_size(), settings.gpu)
    torch.manual_seed(settings.seed)
    repeats = ray.get(job["repeats"]) if job["repeats"] is not None else None

    def order(number: int) -> Any:
        return epoch_order(store.shards, store.size, settings.batch_size, workers, settings.seed, number, repeats)

    device = get_device()
    network = Classifier(
        config.network.backbone, job["findings"], config.network.size, job["mean"], job["std"], config.network.dropout
    )
    network.load_state_dict(ray.get(job["weights"]))
    learner = Learner(config, network.to(device), torch.tensor(job["pos_weight"]), order(0).steps * settings.epochs)
    progress = _resume(learner)
    saved = time.monotonic()
    while progress.epoch < settings.epochs and not (settings.patience and progress.since >= settings.patience):
        now = order(progress.epoch)
        clock, shown = EpochTimer(), 0.0
        totals = torch.tensor([progress.losses, progress.labels] if rank == 0 else [0.0, 0.0], device=device)
        batches = _on_device(epoch(store, now, rank, workers, progress.step), device)
        for batch, pixels, targets in clock.waiting(in_background(batches)):
            totals += learner.step(pixels, targets, batch.share, progress.epoch)
            progress.step = batch.share.step + 1
            clock.images += batch.share.total
            if rank == 0 and board is not None and time.monotonic() - shown > SHOW_EVERY_S:
                shown = time.monotonic()
                share = progress.epoch + progress.step / now.steps
                note = f"epoch {progress.epoch + 1}/{settings.epochs}  loss {float(totals[0] / totals[1]):.3f}"
                board.show.remote(share / settings.epochs, note, clock.waited / (shown - clock.started))
            if not (progress.step % ASK_EVERY == 0 and progress.step < now.steps):
                continue
            if _agreed(time.monotonic() - saved > 60 * settings.checkpoint_minutes, device):
                progress.losses, progress.labels = _summed(totals).tolist()
                _report({"epoch": progress.epoch, "step": progress.step}, learner, progress)
                saved = time.monotonic()
        assert progress.step == now.steps, f"worker {rank} saw {progress.step} of {now.steps} steps"
        losses, labels = _summed(totals).tolist()
        metrics: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train_loss": losses / max(labels, 1.0),
            "lr": learner.schedule.get_last_lr()[0],
            **clock.metrics(),
        }
        answers, truth = val_answers(learner.best, job["val"], config.evaluate.batch_size, rank, workers)
        metrics |= val_metrics(answers, truth, make_loss(config.loss, torch.tensor(job["pos_weight"])))
        better = metrics["selection"] > progress.best
        progress = TrainingProgress(
            progress.epoch + 1,
            best=max(progress.best, metrics["selection"]),
            since=0 if better else progress.since + 1,
        )
        if rank == 0 and board is not None:
            board.val.remote(metrics["val_macro_auroc"])
        _report(metrics, learner, progress, {"logits": torch.from_numpy(answers), "targets": torch.from_numpy(truth)})
        saved = time.monotonic()


def val_answers(
    network: Classifier, store: ImageStore, batch_size: int, rank: int, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets, float32 (N, F), of the whole val set in storage order, on every worker.

    Each worker answers its share, in batches that are the same for any number of workers.
    """
    network.eval()
    findings = len(network.bias)
    both = torch.zeros((2, sum(store.shards), findings))
    for rows, pixels, targets in whole(store, batch_size, rank, workers):
        both[0, rows] = torch.from_numpy(forward(network, np.ascontiguousarray(pixels))[0])
        both[1, rows] = torch.from_numpy(targets.copy())
    logits, truth = _summed(both.to(next(network.parameters()).device)).cpu().numpy()  # the others' rows are 0
    return logits, truth


def val_metrics(logits: np.ndarray, targets: np.ndarray, loss: Any) -> dict[str, float]:
    """Loss and macro-AUROC of float32 (N, F) logits; and the number that the best epoch is chosen by."""
    mean = float(masked_mean(loss(torch.from_numpy(logits), torch.from_numpy(targets)), torch.from_numpy(targets)))
    columns = [str(column) for column in range(targets.shape[1])]
    macro = evaluate(targets, logits, np.arange(len(targets)), columns, resamples=0).macro_auroc.value
    return {"val_loss": mean, "val_macro_auroc": macro, "selection": -mean if np.isnan(macro) else macro}


def _on_device(batches: Iterator[Any], device: torch.device) -> Iterator[Any]:
    """Each batch with its pixels and targets as tensors on the device; copied while the last one is being used."""
    for batch in batches:
        pixels, targets = torch.from_numpy(batch.pixels), torch.from_numpy(batch.targets)
        if device.type == "cuda":
            pixels, targets = pixels.pin_memory(), targets.pin_memory()
        yield batch, pixels.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def _summed(values: Tensor) -> Tensor:
    """The sum over workers."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def _agreed(wish: bool, device: torch.device) -> bool:
    """What rank 0 wishes, on every worker."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return wish
    flag = torch.tensor([float(wish)], device=device)
    dist.broadcast(flag, src=0)
    return bool(flag.item())


def _use_cores(local_workers: int, gpu: bool) -> None:
    """Share the machine's cores among its workers: Ray limits OpenMP to a worker's logical CPUs."""
    if gpu:
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_workers))


def _resume(learner: Learner) -> TrainingProgress:
    """Load the newest checkpoint, if this is a restart; tell how far it is."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return TrainingProgress()
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE, map_location=learner.device, weights_only=True)
    learner.load(state)
    return TrainingProgress(**state["progress"])


def _report(
    metrics: dict[str, Any], learner: Learner, progress: TrainingProgress, val: dict[str, Tensor] | None = None
) -> None:
    """Report metrics, and from rank 0 a checkpoint: the learner, how far it is, and the best network's val answers."""
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(metrics)  # a barrier
        return
    state = {**learner.state(), "progress": vars(progress), "best": learner.best.state_dict(), "val": val}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / STATE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class ProgressBoard:
    """Where rank 0 shows how far it is, for the screen of whoever started the run; lives in an actor."""

    def __init__(self) -> None:
        self.shown = (0.0, "", 0.0)
        self.macro = float("nan")

    def show(self, share: float, note: str, waited: float) -> None:
        """share: of the whole training that is done, 0 to 1. waited: share of this epoch's time, for data."""
        self.shown = (share, note, waited)

    def val(self, macro: float) -> None:
        """The val macro-AUROC of the last epoch."""
        self.macro = macro

    def read(self) -> tuple[float, str]:
        """How much is done, 0 to 1, and a line about it."""
        share, note, waited = self.shown
        macro = "" if np.isnan(self.macro) else f"  val AUROC {self.macro:.3f}"
        return share, f"{note}{macro}  waiting {waited:.0%}" if note else ""
