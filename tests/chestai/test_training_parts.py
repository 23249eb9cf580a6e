"""Loss and augmentation."""

import math

import numpy as np
import pytest
import torch

from chestai.augment import augment
from chestai.loss import masked_bce


def test_loss_equals_the_formula_and_masks_what_is_not_known() -> None:
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.1]])
    targets = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    pos_weight = torch.tensor([3.0, 5.0])

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    terms = [-3 * math.log(sigmoid(0.3)), -math.log(1 - sigmoid(2.0)), -5 * math.log(sigmoid(0.1))]
    assert float(masked_bce(logits, targets, pos_weight)) == pytest.approx(sum(terms) / 3, rel=1e-6)


def test_unknown_labels_give_no_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    targets = torch.full((4, 3), float("nan"))
    masked_bce(logits, targets, torch.ones(3)).backward()
    assert logits.grad is not None and not logits.grad.any()


def test_augmentation_is_seeded_gentle_and_never_flips() -> None:
    half = np.zeros((16, 64, 64), np.uint8)
    half[:, :, :32] = 200  # bright on the left
    batch = torch.from_numpy(half)
    first = augment(batch, torch.Generator().manual_seed(1))
    again = augment(batch, torch.Generator().manual_seed(1))
    other = augment(batch, torch.Generator().manual_seed(2))
    assert first.dtype == torch.uint8 and first.shape == batch.shape
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({bytes(one.numpy().tobytes()) for one in first}) == 16  # a draw per sample
    left, right = first[:, 16:48, 8:24].float().mean((1, 2)), first[:, 16:48, 40:56].float().mean((1, 2))
    assert (left > right + 50).all()
