"""Training losses over multi-label targets in which some labels are not known."""

from torch import Tensor
from torch.nn import functional


def masked_bce(logits: Tensor, targets: Tensor, pos_weight: Tensor) -> Tensor:
    """Binary cross-entropy with logits, averaged over the known labels only.

    Args:
        logits: float (N, F).
        targets: float (N, F) of 0 and 1; NaN = not known.
        pos_weight: float (F,), N_neg / N_pos of the train split: weighs positives as much as negatives.

    Returns:
        A scalar; 0 where no label is known.
    """
    known = ~targets.isnan()
    losses = functional.binary_cross_entropy_with_logits(
        logits, targets.nan_to_num(0.0), pos_weight=pos_weight, reduction="none"
    )
    return (losses * known).sum() / known.sum().clamp(min=1)
