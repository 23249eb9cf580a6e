"""What every training worker runs; the sweep launches the very same function."""

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from chestai import config as conf
from chestai.augment import augment
from chestai.bundle import forward
from chestai.loss import masked_bce
from chestai.metrics.report import evaluate
from chestai.network import Classifier

STATE = "state.pt"
SHUFFLE_ROWS = 4096  # rows that a worker mixes among themselves; shards come in a new order each epoch besides


def train_loop(job: dict[str, Any]) -> None:
    """Train one network, reporting metrics and a checkpoint each epoch.

    Args:
        job: `config` (plain `Config`), `findings` (their number), `pos_weight` (F,), `mean`, `std`, `rows` (images
            of the train split), `board` (an actor with `show`, or None).

    Reports per epoch: train_loss, val_loss, val_macro_auroc (NaN where val has no finding with positives and
    negatives), selection (what the best epoch is chosen by), images_per_s, wait_share (of the time, for data), lr.
    """
    config = conf.validate(job["config"])
    train, board = config.train, job["board"]
    context = ray.train.get_context()
    workers, rank = context.get_world_size(), context.get_world_rank()
    _use_cores(context.get_local_world_size(), train.gpu)
    torch.manual_seed(train.seed)

    device = get_device()
    raw = Classifier(config.network.backbone, job["findings"], job["mean"], job["std"], config.network.dropout)
    model = prepare_model(raw.to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.lr, weight_decay=train.weight_decay)
    batch_size = max(1, train.batch_size // workers)
    steps = math.ceil(job["rows"] / (batch_size * workers))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(step, steps * train.epochs, train.warmup)
    )
    pos_weight = torch.tensor(job["pos_weight"], device=device).clamp(max=train.max_pos_weight)
    dtype = autocast_dtype(train.precision, device)

    first = _resume(unwrapped(model), optimizer, schedule, device)
    shard = ray.train.get_dataset_shard("train")
    for epoch in range(first, train.epochs):
        draws = torch.Generator().manual_seed(train.seed + 1000 * epoch + rank)
        model.train()
        started, waited, seen, total = time.monotonic(), 0.0, 0, torch.zeros((), device=device)
        batches = iter(
            shard.iter_torch_batches(
                batch_size=batch_size,
                device=device,
                prefetch_batches=2,
                local_shuffle_buffer_size=min(SHUFFLE_ROWS, job["rows"] // workers + 1),
                local_shuffle_seed=train.seed + epoch,
            )
        )
        while True:
            waits = time.monotonic()
            batch = next(batches, None)
            waited += time.monotonic() - waits
            if batch is None:
                break
            pixels = augment(batch["pixels"], draws) if train.augment else batch["pixels"]
            with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                logits = model(pixels).logits
            loss = masked_bce(logits.float(), batch["targets"], pos_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
            optimizer.step()
            schedule.step()
            seen += len(pixels)
            total += loss.detach() * len(pixels)
            if rank == 0 and board is not None:
                board.show.remote(epoch * job["rows"] + seen * workers, f"epoch {epoch + 1}/{train.epochs}")
        seconds = time.monotonic() - started
        metrics = {
            "epoch": epoch + 1,
            "train_loss": float(total) / max(seen, 1),
            "images_per_s": seen * workers / seconds,
            "wait_share": waited / seconds,
            "lr": schedule.get_last_lr()[0],
        }
        if rank == 0:
            metrics |= validate(unwrapped(model), pos_weight, batch_size)
            _report(metrics, unwrapped(model), optimizer, schedule)
        else:
            ray.train.report(metrics)  # a barrier: workers wait here for the rank that validates


def validate(network: Classifier, pos_weight: Tensor, batch_size: int) -> dict[str, float]:
    """Loss and macro-AUROC over the whole val set, which is not split among the workers."""
    network.eval()
    logits, targets = [], []
    for batch in ray.train.get_dataset_shard("val").iter_batches(batch_size=batch_size, batch_format="numpy"):
        logits.append(forward(network, np.ascontiguousarray(batch["pixels"]))[0])
        targets.append(batch["targets"])
    if not logits:
        return {"val_loss": math.nan, "val_macro_auroc": math.nan, "selection": 0.0}
    scores, truth = np.concatenate(logits), np.concatenate(targets)
    loss = float(masked_bce(torch.from_numpy(scores), torch.from_numpy(truth), pos_weight.cpu()))
    columns = [str(column) for column in range(truth.shape[1])]
    macro = evaluate(truth, scores, np.arange(len(truth)), columns, resamples=0).macro_auroc.value
    return {"val_loss": loss, "val_macro_auroc": macro, "selection": -loss if math.isnan(macro) else macro}


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where asked for, or where `auto` finds hardware for it; None for fp32."""
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
    return torch.bfloat16 if precision == "bf16" else None


def unwrapped(model: torch.nn.Module) -> Classifier:
    """The network itself, without its DDP wrapper."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(inner, Classifier)
    return inner


def _use_cores(local_workers: int, gpu: bool) -> None:
    """Share the machine's cores among its workers: Ray limits OpenMP to a worker's logical CPUs."""
    if not gpu:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_workers))


def _rate(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then cosine to zero, as a factor of the learning rate."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def _resume(network: Classifier, optimizer: Any, schedule: Any, device: torch.device) -> int:
    """Load the newest checkpoint, if this is a restart; give the epoch to go on with."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE, map_location=device, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["epoch"])


def _report(metrics: dict[str, Any], network: Classifier, optimizer: Any, schedule: Any) -> None:
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "epoch": metrics["epoch"],
    }
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / STATE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class Board:
    """Where rank 0 shows how far it is, for the screen of whoever started the run; lives in an actor."""

    def __init__(self) -> None:
        self.shown = (0, "")

    def show(self, done: int, note: str) -> None:
        self.shown = (done, note)

    def read(self) -> tuple[int, str]:
        return self.shown
