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

from chestai.config.schema import Asymmetric, Bce, Focal, Ldam, Loss


def make_loss(
    settings: Loss, pos_weight: Tensor, positives: Tensor | None = None, done: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """The chosen loss, as a function of logits and targets.

    Args:
        settings: section `loss` of the configuration.
        pos_weight: float (F,), N_neg / N_pos of the train split; used, up to `max_pos_weight`, by `bce`, and by `ldam`.
        positives: (F,), N_pos of the train split; only `ldam` needs it.
        done: finished share of the training, 0 to 1, by which `ldam` weighs its positives or not.
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
        case Ldam():
            assert positives is not None, "ldam needs the number of positives"
            counts = (positives * torch.stack([torch.ones_like(pos_weight), pos_weight]).double()).clamp(min=1)
            weights = (
                _effective_weights(counts, settings.beta) if done >= settings.defer else torch.ones_like(counts[0])
            )
            return partial(ldam, margins=_label_margins(counts, settings.max_margin), pos_weight=weights)


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


def ldam(logits: Tensor, targets: Tensor, margins: Tensor, pos_weight: Tensor) -> Tensor:
    """Label-distribution-aware margin loss: cross-entropy with the logit of the true label lowered by its margin.

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019. Each finding is
    a problem of two labels, present and absent, whose softmax is the sigmoid; so their loss becomes the binary
    cross-entropy of a shifted logit. Their factor s = 30 belongs to normalised features and weights, which this head
    has not: margins are in units of logits. Holste et al., "Long-tailed classification of thorax diseases on
    chest X-ray", 2022, compare it with others on chest X-rays, with a single label an image.

    Args:
        margins: float (2, F), 0 or more, of the present and the absent label; see `_label_margins`.
        pos_weight: float (F,), by which the loss of positives is multiplied.
    """
    logits = _precise(logits)
    present, absent = margins.to(logits)
    return bce(torch.where(targets == 1, logits - present, logits + absent), targets, pos_weight)


def _label_margins(counts: Tensor, largest: float) -> Tensor:
    """Margins in proportion to n^(-1/4) for n train images with the label (2, F); the rarest has `largest`."""
    return largest * (counts.min() / counts) ** 0.25


def _effective_weights(counts: Tensor, beta: float) -> Tensor:
    """The weight of positives (F,) that balances effective numbers (1 - beta^n) / (1 - beta) of n images (2, F).

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    present, absent = 1 - beta**counts
    return absent / present


def distil(
    logits: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], temperature: float, share: float
) -> Tensor:
    """A loss over labels, mixed with the divergence of the student from its teacher.

    (1 - share) loss + share T^2 KL(sigmoid(teacher / T), sigmoid(student / T)) for each finding by itself. Hinton et
    al., "Distilling the Knowledge in a Neural Network", 2014, whose factor T^2 keeps the gradient's size. Where only
    one of label and teacher is known, the other's part is 0.

    Args:
        targets: (N, 2 F): the labels, then the teacher's logits, NaN = not known.
        loss: Over the labels.
        temperature: Above 0.
        share: Of the teacher, 0 to 1.
    """
    truth, taught = targets.chunk(2, dim=1)
    student, teacher = _precise(logits) / temperature, taught.nan_to_num(0.0).to(_precise(logits)) / temperature
    belief = teacher.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(teacher, belief, reduction="none")
    divergence = functional.binary_cross_entropy_with_logits(student, belief, reduction="none") - entropy
    return (1 - share) * loss(logits, truth) + share * temperature**2 * _masked(divergence, taught)


def known_targets(targets: Tensor, findings: int | None = None) -> Tensor:
    """How many labels are known: an integer scalar; sums of it over batches or workers make a mean exact.

    Args:
        findings: Their number F if targets are (N, 2 F), see `distil`; a label counts once if it or the teacher's logit
            is known.
    """
    known = ~targets.isnan()
    return (known if findings is None else known.unflatten(1, (-1, findings)).any(dim=1)).sum()


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
