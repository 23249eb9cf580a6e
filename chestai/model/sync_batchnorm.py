"""BatchNorm over the batches of all workers, so that what is learnt does not depend on their number.

On CUDA PyTorch has it. On the CPU its SyncBatchNorm refuses to work; here is one for any device.
"""

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional

PLACES = (0, 2, 3)  # all axes but the channels'


def synchronise(network: nn.Module, device_type: str) -> nn.Module:
    """Make each BatchNorm2d of the network, timm's BatchNormAct2d included, use statistics over all workers.

    Args:
        network: its parameters and buffers go on in the result under the same names; wrap that in
            DistributedDataParallel. In training mode all workers must run it equally often, forward and backward.
        device_type: `cuda` or `cpu`.

    Returns:
        The network itself where this is the only worker.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return network
    if device_type == "cuda":
        return convert_sync_batchnorm(network)
    if isinstance(network, nn.BatchNorm2d):
        return SyncBatchNorm2d(network)
    for name, child in network.named_children():
        setattr(network, name, synchronise(child, device_type))
    return network


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d or BatchNormAct2d whose statistics are of all workers' batches; those may differ in size.

    Args:
        norm: gives its settings, parameters and buffers (shared, not copied) and, if it has one, its activation.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, "meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, C, H, W) -> the same shape and dtype; N may be 0 on some of the workers."""
        return self.act(self.drop(self._normalise(x) if self.training else super().forward(x)))

    def _normalise(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision is too coarse for statistics
        normal, count, mean, variance = _Normalise.apply(values, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._track(count, mean, variance)
        return normal.to(x.dtype)

    @torch.no_grad()
    def _track(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), momentum)


class _Normalise(torch.autograd.Function):
    """The forward and backward pass of Ioffe & Szegedy, ICML 2015, each with one exchange between the workers.

    Written out because autograd would keep three copies of the activations instead of one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        count, mean, variance = _statistics(x)
        ctx.save_for_backward(x, weight, count, mean, torch.rsqrt(variance + eps))
        ctx.mark_non_differentiable(count, mean, variance)
        return functional.batch_norm(x, mean, variance, weight, bias, eps=eps), count, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, rstd = ctx.saved_tensors
        gradient = gradients[0]
        normal = (x - _channels(mean)).mul_(_channels(rstd))
        of_bias, of_weight = gradient.sum(PLACES), (gradient * normal).sum(PLACES)
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums)  # through the statistics every worker's loss depends on every worker's batch
        through_mean, through_variance = sums / count
        scale = rstd if weight is None else rstd * weight
        of_x = normal.mul_(-_channels(through_variance)).add_(gradient).sub_(_channels(through_mean))
        of_x.mul_(_channels(scale))
        return (of_x, None, None, None) if weight is None else (of_x, of_weight, of_bias, None)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values a channel, their mean (C,) and biased variance (C,) over all workers.

    Chan et al., "Algorithms for Computing the Sample Variance", The American Statistician 37 (1983): from each
    worker's mean and variance, because a difference of sums of squares would lose the variance of large values.
    """
    channels = x.shape[1]
    count = x.numel() // channels
    mean = x.sum(PLACES) / max(count, 1)
    variance = (x - _channels(mean)).square_().sum(PLACES) / max(count, 1)
    rows = x.new_zeros(dist.get_world_size(), 2 * channels + 1)
    rows[dist.get_rank()] = torch.cat([mean, variance, mean.new_tensor([count])])
    dist.all_reduce(rows)  # so each worker has the rows of all

    means, variances, counts = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]
    total = counts.sum()
    share = counts / total
    mean = (share * means).sum(0)
    return total, mean, (share * (variances + (means - mean).square())).sum(0)


def _channels(values: Tensor) -> Tensor:
    return values[:, None, None]
