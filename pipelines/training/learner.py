"""One training step: forward, loss, backward, update; the same result for any number of workers that share it."""

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ray.train.torch import prepare_model
from timm.optim import param_groups_layer_decay
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from chestai.config.schema import Config, Train
from chestai.model.augment import augment, draw
from chestai.model.classifier import Classifier
from chestai.model.losses import distil, known_targets, make_loss
from chestai.model.sync_batchnorm import synchronise
from pipelines.data.sampler import StepShare


class Learner:
    """One worker's network, optimizer, schedule and moving average.

    Args:
        config: Its sections network, loss, augment and train are used.
        network: On the worker's device, with the same weights on every worker.
        pos_weight: Float (F,).
        positives: (F,), train images with the finding; empty unless the loss needs them.
        steps: Of the whole training.
    """

    def __init__(self, config: Config, network: Classifier, pos_weight: Tensor, positives: Tensor, steps: int) -> None:
        self.train, self.augmentation = config.train, config.augment
        self.device = next(network.parameters()).device
        self.workers = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        if config.train.sync_batchnorm:
            network = synchronise(network, self.device.type)  # type: ignore[assignment]
        self.network = network.to(memory_format=torch.channels_last)
        self.model = prepare_model(self.network, move_to_device=False)
        self.forward = torch.compile(self.model) if config.train.compile else self.model
        balance = pos_weight.to(self.device), positives.to(self.device)
        # Of an epoch, counted from 0: a loss may change in the course of the training.
        self.loss = cache(lambda epoch: self._make_loss(config, balance, epoch / config.train.epochs))
        self.optimizer = make_optimizer(self.network, config.train)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _learning_rate_factor(step, steps, config.train.warmup)
        )
        self.dtype = choose_autocast_dtype(config.train.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.train.ema), use_buffers=True)
            if config.train.ema
            else None
        )

    @property
    def best(self) -> Classifier:
        """The network to validate and store: the moving average if there is one."""
        return self.average.module if self.average is not None else self.network  # type: ignore[return-value]

    def step(self, pixels: Tensor, targets: Tensor, share: StepShare, epoch: int) -> Tensor:
        """Runs this worker's share of one step.

        The gradient is that of the mean loss over all known labels of the step, on whichever worker they are.

        Args:
            pixels: uint8 (n, S, S).
            targets: Float (n, F), NaN = not known; with a teacher (n, 2 F), see `chestai.model.losses.distil`.
            share: Which images of the step this worker has.
            epoch: Counted from 0.

        Returns:
            Float (2,): the sum of the losses over the known labels of this worker's share, and their number.
        """
        self.model.train()
        seeds = _make_seeds(self.train.seed, epoch, share.step, self.rank)
        # Drawn for the whole step, so that what happens to an image does not depend on the number of workers.
        rows = slice(share.first, share.first + share.count)
        pixels = augment(pixels, draw(share.total, torch.Generator().manual_seed(seeds[0]))[rows], self.augmentation)
        torch.manual_seed(seeds[1])
        kept = self.network.draw_kept(share.total)[rows]
        torch.manual_seed(seeds[2])  # for what a backbone draws itself, such as stochastic depth
        labels = known_targets(targets, len(self.network.bias))
        total = labels.clone()
        if self.workers > 1:
            dist.all_reduce(total)
        scale = self.workers / total.clamp(min=1)  # DDP averages over workers
        parts = min(self.train.accumulate, share.smallest)
        losses = torch.zeros((), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        tensors = (pixels.tensor_split(parts), targets.tensor_split(parts), kept.tensor_split(parts))
        for number, (images, truth, channels) in enumerate(zip(*tensors, strict=True)):
            if isinstance(self.model, DistributedDataParallel):
                self.model.require_backward_grad_sync = number == parts - 1
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                logits = self.forward(images, channels).logits
            loss = self.loss(epoch)(logits, truth).sum()
            self.scaler.scale(loss * scale).backward()
            losses += loss.detach()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.train.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return torch.stack([losses, labels.to(losses)])

    @staticmethod
    def _make_loss(config: Config, balance: tuple[Tensor, Tensor], done: float) -> Callable[[Tensor, Tensor], Tensor]:
        loss, teaching = make_loss(config.loss, *balance, done=done), config.distil
        if teaching.teacher is None:
            return loss
        return partial(distil, loss=loss, temperature=teaching.temperature, share=teaching.share)

    def state(self) -> dict[str, Any]:
        """Everything a restart needs."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])


def make_optimizer(network: Classifier, settings: Train) -> torch.optim.AdamW:
    """AdamW in one fused kernel instead of a loop over hundreds of small tensors: 2 % of a step at 112 px.

    With `layer_decay` below 1 the learning rate falls by this factor a layer, from the head to the stem, and vectors
    (biases, norms) do not decay (Bao et al., "BEiT", ICLR 2022; the layers are timm's).
    """
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": learning}]
    if settings.layer_decay < 1:
        undecayed: set[str] = getattr(network.backbone, "no_weight_decay", set)()  # positions and class tokens
        layered = param_groups_layer_decay(
            network.backbone, settings.weight_decay, undecayed, layer_decay=settings.layer_decay
        )
        backbone = {id(parameter) for parameter in network.backbone.parameters()}
        head = [parameter for parameter in learning if id(parameter) not in backbone]
        groups = [{"params": head}] + [
            {"params": group["params"], "weight_decay": group["weight_decay"], "lr": settings.lr * group["lr_scale"]}
            for group in layered
        ]
    return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def choose_autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of the forward pass, None for fp32; `auto` takes bf16 or fp16 where the hardware has it."""
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up, then cosine to zero."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def _make_seeds(seed: int, epoch: int, step: int, rank: int) -> tuple[int, int, int]:
    """Seeds for augmentation and dropout, the same on every worker, and one for a worker's own draws."""
    entropies = ([seed, epoch, step], [seed, epoch, step, 1], [seed, epoch, step, rank + 2])
    first, second, own = (
        int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1) for entropy in entropies
    )
    return first, second, own
