"""Training losses over multi-label targets in which some labels are not known.

All take logits (N, F) of any float dtype and targets (N, F) of 1, 0 and NaN = not known, and give the loss of each
label: (N, F), 0 where the label is not known, float32 (float64 for float64 logits) also inside autocast. Loss and
gradient are finite for finite logits.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from chestai.config.schema import Asymmetric, Bce, Focal, Loss


def make_loss(settings: Loss, pos_weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The chosen loss, as a function of logits and targets.

    Args:
        settings: section `loss` of the configuration.
        pos_weight: float (F,), N_neg / N_pos of the train split; used, up to `max_pos_weight`, by `bce` alone.
    """
    match settings:
        case Bce():
            return partial(bce, pos_weight=pos_weight.clamp(max=settings.max_pos_weight))
        case Focal():
            return partial(focal, alpha=settings.alpha, gamma=settings.gamma)
        case Asymmetric():
            return partial(
                asymmetric,
                gamma_positive=settings.gamma_positive,
                gamma_negative=settings.gamma_negative,
                clip=settings.clip,
            )


def bce(logits: Tensor, targets: Tensor, pos_weight: Tensor) -> Tensor:
    """Binary cross-entropy; the loss of a positive is multiplied by its finding's `pos_weight`, (F,)."""
    logits = _precise(logits)
    labels = targets.nan_to_num(0.0).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(
        logits, labels, pos_weight=pos_weight.to(logits), reduction="none"
    )
    return _masked(losses, targets)


def focal(logits: Tensor, targets: Tensor, alpha: float | None, gamma: float) -> Tensor:
    """Focal loss: -(1 - p_t)^gamma log(p_t), with p_t the probability of the true label.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Args:
        alpha: multiplies the loss of positives, and 1 - alpha that of negatives, 0 to 1; None multiplies by nothing.
        gamma: 0 or more; how little labels count that are already right.
    """
    logits = _precise(logits)
    positive = targets == 1
    margin = torch.where(positive, logits, -logits)
    losses = _focus(margin, gamma)
    if alpha is not None:
        losses = torch.where(positive, alpha * losses, (1 - alpha) * losses)
    return _masked(losses, targets)


def asymmetric(logits: Tensor, targets: Tensor, gamma_positive: float, gamma_negative: float, clip: float) -> Tensor:
    """Asymmetric loss: focal loss with a gamma for each label, negatives with their probability shifted down.

    -(1 - p)^gamma_positive log(p) for positives; -p_m^gamma_negative log(1 - p_m) for negatives, with
    p_m = max(p - clip, 0). Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021.

    Args:
        gamma_positive, gamma_negative: 0 or more.
        clip: 0 to below 1; a negative with a probability up to it counts nothing.
    """
    logits = _precise(logits)
    # log(1 - p + clip), from logarithms because 1 - p is 0 in float32 for logits above 17
    log_rest = torch.logaddexp(functional.logsigmoid(-logits), logits.new_tensor(clip).log())
    # not clamped at 0, where the derivative of a power below 1 is infinite
    shifted = (torch.sigmoid(logits) - clip).clamp(min=torch.finfo(logits.dtype).tiny)
    negatives = -(shifted**gamma_negative) * log_rest.clamp(max=0.0)
    return _masked(torch.where(targets == 1, _focus(logits, gamma_positive), negatives), targets)


def known_targets(targets: Tensor) -> Tensor:
    """How many labels are known: an integer scalar; sums of it over batches or workers make a mean exact."""
    return (~targets.isnan()).sum()


def masked_mean(losses: Tensor, targets: Tensor) -> Tensor:
    """Mean of the losses (N, F) over the known labels: a scalar, 0 where none is known."""
    return losses.sum() / known_targets(targets).clamp(min=1)


def _focus(margin: Tensor, gamma: float) -> Tensor:
    """-(1 - q)^gamma log(q), q = sigmoid(margin); the power by way of its logarithm, so that no gradient is NaN."""
    return -torch.exp(gamma * functional.logsigmoid(-margin)) * functional.logsigmoid(margin)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _masked(losses: Tensor, targets: Tensor) -> Tensor:
    return losses.masked_fill(targets.isnan(), 0.0)
