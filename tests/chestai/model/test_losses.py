"""The losses against their papers' formulas and other libraries."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from chestai.config.schema import Asymmetric, Bce, Focal, Ldam
from chestai.model.losses import asymmetric, bce, distil, focal, known_targets, ldam, make_loss, masked_mean

NAN = math.nan
POS_WEIGHT = torch.tensor([3.0, 5.0, 0.5])
POSITIVES = torch.tensor([1000, 16, 4000])
MARGINS = torch.tensor([[0.3, 0.5, 0.1], [0.2, 0.05, 0.4]])

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": lambda logits, targets: bce(logits, targets, POS_WEIGHT),
    "focal": lambda logits, targets: focal(logits, targets, 0.25, 2.0),
    "focal, neither weight nor integer power": lambda logits, targets: focal(logits, targets, None, 0.5),
    "asymmetric": lambda logits, targets: asymmetric(logits, targets, 0.0, 4.0, 0.05),
    "ldam": lambda logits, targets: ldam(logits, targets, MARGINS, POS_WEIGHT),
    "taught": lambda logits, targets: distil(
        logits, torch.cat([targets, 2 - 4 * targets], dim=1), LOSSES["bce"], 2.0, 0.0
    ),
    "asymmetric, roots and no shift": lambda logits, targets: asymmetric(logits, targets, 0.5, 0.5, 0.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> Tensor:
    draws = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return torch.where(draws < 0.2, NAN, (draws < 0.6).double())


def by_label(targets: Tensor, positives: np.ndarray, negatives: np.ndarray) -> Tensor:
    truth = targets.numpy()
    return torch.from_numpy(np.where(np.isnan(truth), 0.0, np.where(truth == 1, positives, negatives)))


def test_bce_equals_its_formula(logits: Tensor, targets: Tensor) -> None:
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = by_label(targets, -POS_WEIGHT.numpy() * np.log(p), -np.log(1 - p))
    torch.testing.assert_close(bce(logits, targets, POS_WEIGHT), expected)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 0.5), (0.1, 0.0)])
def test_focal_equals_its_formula(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> None:
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = by_label(targets, -alpha * (1 - p) ** gamma * np.log(p), -(1 - alpha) * p**gamma * np.log(1 - p))
    torch.testing.assert_close(focal(logits, targets, alpha, gamma), expected)


@pytest.mark.parametrize("alpha", [0.25, None])
def test_focal_equals_torchvision(logits: Tensor, targets: Tensor, alpha: float | None) -> None:
    single, labels = logits.float(), targets.float()
    theirs = sigmoid_focal_loss(single, labels.nan_to_num(), -1 if alpha is None else alpha, 2.0)
    expected = theirs.masked_fill(labels.isnan(), 0.0)
    torch.testing.assert_close(focal(single, labels, alpha, 2.0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gammas", [(0.0, 4.0), (1.0, 0.5), (2.0, 0.0)])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.4])
def test_asymmetric_equals_its_formula(
    logits: Tensor, targets: Tensor, gammas: tuple[float, float], clip: float
) -> None:
    p = 1 / (1 + np.exp(-logits.numpy()))
    shifted = np.maximum(p - clip, 0)
    expected = by_label(targets, -((1 - p) ** gammas[0]) * np.log(p), -(shifted ** gammas[1]) * np.log(1 - shifted))
    torch.testing.assert_close(asymmetric(logits, targets, *gammas, clip), expected)


def test_asymmetric_with_neutral_settings_is_cross_entropy(logits: Tensor, targets: Tensor) -> None:
    plain = bce(logits, targets, torch.ones(3))
    torch.testing.assert_close(asymmetric(logits, targets, 0.0, 0.0, 0.0), plain)


def test_ldam_equals_the_softmax_of_its_paper_over_present_and_absent(logits: Tensor, targets: Tensor) -> None:
    """Each finding as a problem of two classes: cross-entropy after the true one's logit is lowered by its margin."""
    for column in range(3):
        known = ~targets[:, column].isnan()
        truth = targets[known, column].long()
        pairs = torch.stack([torch.zeros_like(logits[known, column]), logits[known, column]], dim=1)
        margins = MARGINS.flip(0)[:, column].double()  # of absent, of present
        lowered = pairs - functional.one_hot(truth, 2) * margins
        weights = torch.tensor([1.0, float(POS_WEIGHT[column])], dtype=torch.float64)
        expected = functional.cross_entropy(lowered, truth, weight=weights, reduction="none")
        torch.testing.assert_close(ldam(logits, targets, MARGINS, POS_WEIGHT)[known, column], expected)


def test_ldam_gives_the_rarest_label_the_largest_margin_and_weighs_positives_late(
    logits: Tensor, targets: Tensor
) -> None:
    settings = Ldam(name="ldam", max_margin=0.5, defer=0.8, beta=0.999)
    counts = np.stack([POSITIVES.numpy(), POSITIVES.numpy() * POS_WEIGHT.numpy()])
    margins = torch.from_numpy(0.5 * (16 / counts) ** 0.25)
    assert margins.max() == margins[0, 1] == 0.5
    early, late = (make_loss(settings, POS_WEIGHT, POSITIVES, done) for done in (0.79, 0.8))
    torch.testing.assert_close(early(logits, targets), ldam(logits, targets, margins, torch.ones(3)))
    present, absent = (1 - 0.999**counts) / (1 - 0.999)
    torch.testing.assert_close(
        late(logits, targets), ldam(logits, targets, margins, torch.from_numpy(absent / present))
    )
    assert (absent / present)[1] > 4 and (absent / present)[2] < 1, "rare positives weigh more, frequent ones less"


def test_ldam_takes_a_finding_without_positives(logits: Tensor, targets: Tensor) -> None:
    settings = Ldam(name="ldam", max_margin=0.5, defer=0.0, beta=0.9999)
    losses = make_loss(settings, torch.ones(3), torch.tensor([0, 5, 0]))(logits, targets)
    assert losses.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_mixes_the_labels_with_the_divergence_from_the_teacher(
    logits: Tensor, targets: Tensor, temperature: float
) -> None:
    teacher = 2 * torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    teacher[0, 0] = teacher[1] = NAN
    targets[0, 0], targets[2, 2] = NAN, NAN
    found = distil(logits, torch.cat([targets, teacher], dim=1), LOSSES["bce"], temperature, share=0.7)
    theirs, ours = torch.sigmoid(teacher / temperature), torch.sigmoid(logits / temperature)
    pairs = [torch.stack([one, 1 - one], dim=-1) for one in (theirs, ours)]
    divergence = (pairs[0] * (pairs[0] / pairs[1]).log()).sum(dim=-1).nan_to_num(0.0)
    torch.testing.assert_close(found, 0.3 * LOSSES["bce"](logits, targets) + 0.7 * temperature**2 * divergence)
    assert found[0, 0] == 0 and found[2, 2] > 0, "nothing known, and only the teacher known"
    only = distil(teacher, torch.cat([targets, teacher], dim=1), LOSSES["bce"], temperature, share=1.0)
    torch.testing.assert_close(only[2:], torch.zeros_like(only[2:]), atol=1e-9, rtol=0)


def test_a_label_counts_once_if_it_or_the_teacher_is_known() -> None:
    labels, teacher = torch.tensor([[1.0, NAN, NAN]]), torch.tensor([[0.3, 0.2, NAN]])
    assert int(known_targets(torch.cat([labels, teacher], dim=1), findings=3)) == 2
    assert int(known_targets(labels, findings=3)) == int(known_targets(labels)) == 1


@every_loss
def test_gradients_equal_finite_differences(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor
) -> None:
    assert torch.autograd.gradcheck(lambda x: loss(x, targets[:5]), (logits[:5].requires_grad_(),))


@every_loss
@pytest.mark.parametrize("flush", [False, True])
def test_extreme_logits_give_finite_loss_and_gradient(loss: Callable[[Tensor, Tensor], Tensor], flush: bool) -> None:
    column = torch.tensor([-100.0, -89.0, -30.0, 0.0, 17.0, 30.0, 89.0, 100.0]).repeat(2)
    logits = column.unsqueeze(1).repeat(1, 3).requires_grad_()
    targets = torch.tensor([0.0, 1.0]).repeat_interleave(8).unsqueeze(1).repeat(1, 3)
    torch.set_flush_denormal(flush)
    try:
        losses = loss(logits, targets)
        losses.sum().backward()
    finally:
        torch.set_flush_denormal(False)
    assert logits.grad is not None and logits.grad.isfinite().all() and losses.isfinite().all()
    assert (losses[7] > 2).all() and (losses[8] > 2).all()  # surely wrong costs much
    assert (losses[0] < 1e-9).all() and (losses[15] < 1e-9).all()  # surely right costs nothing


@every_loss
def test_computes_in_float32_under_half_precision_and_autocast(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor
) -> None:
    half = logits.bfloat16()
    expected = loss(half.double(), targets).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss(half, targets.float())
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)


@every_loss
def test_unknown_labels_have_no_loss_and_no_gradient(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits = torch.randn(4, 3).requires_grad_()
    targets = torch.full((4, 3), NAN)
    targets[0, 1] = 1.0
    losses = loss(logits, targets)
    losses.sum().backward()
    assert logits.grad is not None
    assert losses.count_nonzero() == 1 and logits.grad.count_nonzero() == 1 and logits.grad[0, 1] < 0


def test_mean_is_over_the_known_labels() -> None:
    targets = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    losses = torch.tensor([[2.0, 0.0], [3.0, 7.0]])
    assert int(known_targets(targets)) == 3 and float(masked_mean(losses, targets)) == 4
    nothing = torch.full((2, 2), NAN)
    assert int(known_targets(nothing)) == 0 and float(masked_mean(torch.zeros(2, 2), nothing)) == 0


def test_settings_choose_the_loss(logits: Tensor, targets: Tensor) -> None:
    capped = make_loss(Bce(name="bce", max_pos_weight=4.0), POS_WEIGHT)(logits, targets)
    reference = functional.binary_cross_entropy_with_logits(
        logits, targets.nan_to_num(), pos_weight=torch.tensor([3.0, 4.0, 0.5]), reduction="none"
    )
    torch.testing.assert_close(capped, reference.masked_fill(targets.isnan(), 0.0))
    chosen = make_loss(Focal(name="focal", alpha=None, gamma=1.5), POS_WEIGHT)(logits, targets)
    assert torch.equal(chosen, focal(logits, targets, None, 1.5))
    settings = Asymmetric(name="asymmetric", gamma_positive=1.0, gamma_negative=3.0, clip=0.1)
    assert torch.equal(make_loss(settings, POS_WEIGHT)(logits, targets), asymmetric(logits, targets, 1.0, 3.0, 0.1))
