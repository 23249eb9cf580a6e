"""Ensembles against plain means of their members, their views against OpenCV and against each other."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from chestai.model.classifier import Classifier
from chestai.model.ensemble import ROTATION, ZOOM, Ensemble, View, _views

SIZE = 64
VIEWS: tuple[View, ...] = ("flip", "rotate", "zoom")


def classifier(seed: int, backbone: str = "resnet10t", findings: int = 3, size: int = SIZE) -> Classifier:
    torch.manual_seed(seed)
    network = Classifier(backbone, findings, size, mean=(0.5,), std=(0.25,)).eval()
    with torch.no_grad():
        network.head.weight.mul_(20)  # so that members and views differ by more than rounding does
        network.bias.normal_()
    return network


@pytest.fixture(scope="module")
def one() -> Classifier:
    return classifier(1)


@pytest.fixture(scope="module")
def finer() -> Classifier:
    """With 4 x 4 places where `one` has 2 x 2."""
    return classifier(2, "vit_tiny_patch16_224")


@pytest.fixture(scope="module")
def batch() -> Tensor:
    """Smooth structure, a different one in each image."""
    coarse = torch.rand((5, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    return (smooth[:, 0] * 255).round().to(torch.uint8)


@torch.no_grad()
def test_single_member_without_views_equals_itself(one: Classifier, batch: Tensor) -> None:
    ours, alone = Ensemble([one])(batch), one(batch)
    assert torch.equal(ours.logits, alone.logits) and torch.equal(ours.evidence, alone.evidence)


@torch.no_grad()
def test_logits_are_the_mean_over_members(one: Classifier, finer: Classifier, batch: Tensor) -> None:
    ours = Ensemble([one, finer])(batch).logits
    torch.testing.assert_close(ours, (one(batch).logits + finer(batch).logits) / 2)
    assert (ours - one(batch).logits).abs().max() > 0.01, "a member that counts nothing would go unseen"


@torch.no_grad()
def test_views_of_all_members_have_equal_weight(one: Classifier, finer: Classifier, batch: Tensor) -> None:
    looks = list(_views(batch, VIEWS))
    assert len(looks) == 5 and torch.equal(looks[0], batch)
    each = torch.stack([member(look).logits for member in (one, finer) for look in looks])
    torch.testing.assert_close(Ensemble([one, finer], VIEWS)(batch).logits, each.mean(dim=0))
    assert (each[1:5] - each[0]).abs().amax(dim=(1, 2)).min() > 1e-3, "a view that changes nothing would go unseen"


@torch.no_grad()
def test_evidence_is_that_of_the_original_image_on_the_largest_grid(
    one: Classifier, finer: Classifier, batch: Tensor
) -> None:
    ours = Ensemble([one, finer], VIEWS)(batch).evidence
    coarse = one(batch).evidence.numpy()
    enlarged = np.stack(
        [[cv2.resize(plane, (4, 4), interpolation=cv2.INTER_LINEAR) for plane in row] for row in coarse]
    )
    assert coarse.shape[2:] == (2, 2) and ours.shape == (5, 3, 4, 4)
    torch.testing.assert_close(ours, (torch.from_numpy(enlarged) + finer(batch).evidence) / 2, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_output_does_not_depend_on_the_batch(one: Classifier, finer: Classifier, batch: Tensor) -> None:
    ensemble = Ensemble([one, finer], VIEWS)
    together = ensemble(batch)
    for index in range(len(batch)):
        alone = ensemble(batch[[index]])
        torch.testing.assert_close(alone.logits[0], together.logits[index], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(alone.evidence[0], together.evidence[index], atol=1e-3, rtol=1e-5)
    for whole, part in zip(_views(batch, VIEWS), _views(batch[2:3], VIEWS), strict=True):
        assert torch.equal(whole[2], part[0])


@torch.no_grad()
def test_flip_view_gives_an_image_and_its_mirror_equal_logits(one: Classifier, batch: Tensor) -> None:
    ensemble = Ensemble([one], ("flip",))
    torch.testing.assert_close(ensemble(batch).logits, ensemble(batch.flip(-1)).logits)


@pytest.mark.parametrize(("view", "moves"), [("rotate", [(ROTATION, 1.0), (-ROTATION, 1.0)]), ("zoom", [(0.0, ZOOM)])])
def test_views_match_opencv(view: View, moves: list[tuple[float, float]], batch: Tensor) -> None:
    looks = list(_views(batch, (view,)))[1:]
    assert len(looks) == len(moves)
    centre = ((SIZE - 1) / 2, (SIZE - 1) / 2)
    for look, (clockwise, zoom) in zip(looks, moves, strict=True):
        turn = cv2.getRotationMatrix2D(centre, -clockwise, zoom)
        for ours, image in zip(look.numpy(), batch.numpy(), strict=True):
            theirs = cv2.warpAffine(image.astype(np.float32), turn, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
            inner = np.s_[8:-8, 8:-8]  # at the border the two blend with black in slightly different ways
            assert np.abs(ours - theirs)[inner].max() < 2
            assert np.abs(ours - image)[inner].max() > 10


def test_keeps_its_input(one: Classifier, batch: Tensor) -> None:
    before = batch.clone()
    with torch.no_grad():
        Ensemble([one], VIEWS)(batch)
    assert torch.equal(batch, before)


@pytest.mark.parametrize("views", [("mirror",), ("flip", "flip")])
def test_rejects_unknown_and_repeated_views(one: Classifier, views: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be some of flip, rotate, zoom, each once"):
        Ensemble([one], views)  # type: ignore[arg-type]


def test_rejects_members_that_do_not_match(one: Classifier) -> None:
    for members in ([], [one, classifier(3, findings=2)], [one, classifier(3, size=96)]):
        with pytest.raises(ValueError, match="members must agree"):
            Ensemble(members)
