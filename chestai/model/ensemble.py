"""Ensembles and test-time augmentation: several classifiers and several views of an image as one network."""

from collections.abc import Iterator, Sequence
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from chestai.config.schema import View
from chestai.model.classifier import Classifier, NetworkOutput

ROTATION = 4.0  # degrees, either way
ZOOM = 1.08


class Ensemble(nn.Module):
    """Predicts the mean of its members over the plain image and further views of it.

    Logits are averaged before calibration (deep ensembles: Lakshminarayanan et al., NeurIPS 2017), each view of each
    member counting the same. A forward pass costs `len(members)` times the number of views. The output of an image does
    not depend on its batch. One member without views gives bit by bit what it gives alone.

    Args:
        members: One or more classifiers of the same findings and input size.
        views: The views beside the plain image, each once:
            `flip`, mirrored left to right. It shows the heart on the wrong side, as no member trained without flips
            has seen it, and swaps left and right: only for findings that have no side.
            `rotate`, two views, turned 4 degrees either way.
            `zoom`, the centre enlarged by 1.08.
            Pixels from outside the image are black, as in training.

    Raises:
        ValueError: There is no member, sizes or findings differ, or a view is unknown or given twice.
    """

    def __init__(self, members: Sequence[Classifier], views: Sequence[View] = ()) -> None:
        super().__init__()
        kinds = {(member.size, len(member.bias)) for member in members}
        if len(kinds) != 1:
            raise ValueError(f"members must agree in pixels a side and number of findings: {sorted(kinds)}")
        allowed = get_args(View)
        if not set(views) <= set(allowed) or len(set(views)) != len(views):
            raise ValueError(f"views {list(views)} must be some of {', '.join(allowed)}, each once")
        self.members = nn.ModuleList(members)
        self.views = tuple(views)

    def forward(self, pixels: Tensor) -> NetworkOutput:
        """Predicts uint8 (N, S, S) from `chestai.imaging.preprocess`.

        The evidence is the mean over members for the plain image, float32, with smaller grids enlarged to the largest
        (bilinear). So it matches the image whatever the views are, but its mean over space is no longer the logit. The
        embedding is that of the plain image of all members, one after the other.
        """
        views = list(_views(pixels, self.views))
        outputs = [[member(view) for view in views] for member in self.members]
        logits = torch.stack([output.logits for own in outputs for output in own]).mean(dim=0)
        plain = [own[0] for own in outputs]
        embedding = torch.cat([output.embedding for output in plain], dim=1)
        return NetworkOutput(logits, _mean_map([output.evidence.float() for output in plain]), embedding)


def _views(pixels: Tensor, views: Sequence[View]) -> Iterator[Tensor]:
    """The image itself first, unchanged; then its views, in float32 of the same scale if resampled."""
    yield pixels
    for view in views:
        if view == "flip":
            yield pixels.flip(-1)
        elif view == "rotate":
            yield _transformed(pixels, angle=ROTATION)
            yield _transformed(pixels, angle=-ROTATION)
        else:
            yield _transformed(pixels, zoom=ZOOM)


def _transformed(pixels: Tensor, angle: float = 0.0, zoom: float = 1.0) -> Tensor:
    """Rotates (N, S, S) about the centre by degrees, clockwise, and enlarges it; float32."""
    turn = torch.deg2rad(torch.tensor(angle, dtype=torch.float64))
    cosine, sine = turn.cos() / zoom, turn.sin() / zoom
    matrix = torch.stack([cosine, sine, cosine * 0, -sine, cosine, cosine * 0]).view(1, 2, 3)
    # Computed for one image, then shared: a matrix product over a batch may round differently per batch size.
    grid = functional.affine_grid(matrix, [1, 1, *pixels.shape[1:]], align_corners=False).to(pixels.device)
    images = pixels.unsqueeze(1).to(torch.float32)
    moved = functional.grid_sample(
        images, grid.to(torch.float32).expand(len(images), -1, -1, -1), mode="bilinear", align_corners=False
    )
    return moved.squeeze(1)


def _mean_map(maps: Sequence[Tensor]) -> Tensor:
    """The mean of (N, F, h, w) with different h and w, at the largest of them."""
    height, width = (max(plane.shape[axis] for plane in maps) for axis in (2, 3))
    enlarged = [
        plane
        if plane.shape[2:] == (height, width)
        else functional.interpolate(plane, size=(height, width), mode="bilinear", align_corners=False)
        for plane in maps
    ]
    return torch.stack(enlarged).mean(dim=0)
