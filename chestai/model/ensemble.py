"""Several classifiers, and several looks at an image, as one network: ensembles and test-time augmentation."""

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
    """The mean answer of its members over the plain image and further views of it.

    Logits are averaged before calibration (deep ensembles: Lakshminarayanan et al., NeurIPS 2017), each view of each
    member counting the same. A forward pass costs `len(members)` times the number of views. An image's answer does not
    depend on its batch. One member without views answers bit by bit what it answers alone.

    Args:
        members: classifiers of the same findings and input size, in evaluation mode or not, as they are; one or more.
        views: which views there are beside the plain image, each once:
            `flip`, mirrored left to right. It shows the heart on the wrong side, as no member trained without flips
            has seen it, and swaps left and right: only for findings that have no side.
            `rotate`, two views, turned 4 degrees either way.
            `zoom`, the centre enlarged by 1.08.
            What comes in from outside is black, as in training.

    Raises:
        ValueError: there is no member, their sizes or findings differ, or a view is unknown or there twice.
    """

    def __init__(self, members: Sequence[Classifier], views: Sequence[View] = ()) -> None:
        super().__init__()
        kinds = {(member.size, len(member.bias)) for member in members}
        if len(kinds) != 1:
            raise ValueError(f"members must agree in pixels a side and number of findings: {sorted(kinds)}")
        known = get_args(View)
        if not set(views) <= set(known) or len(set(views)) != len(views):
            raise ValueError(f"views {list(views)} must be some of {', '.join(known)}, each once")
        self.members = nn.ModuleList(members)
        self.views = tuple(views)

    def forward(self, pixels: Tensor) -> NetworkOutput:
        """`uint8` (N, S, S) from `chestai.imaging.preprocess` -> `Output`.

        Its evidence is the mean over members of the plain image's, float32; smaller grids are enlarged to the largest
        (bilinear). So it lies where the image does whatever the views are, but its mean over space is no longer the
        logit. Its embedding is the plain image's of all members, one after the other.
        """
        looks = list(_looks(pixels, self.views))
        outputs = [[member(look) for look in looks] for member in self.members]
        logits = torch.stack([output.logits for own in outputs for output in own]).mean(dim=0)
        plain = [own[0] for own in outputs]
        embedding = torch.cat([one.embedding for one in plain], dim=1)
        return NetworkOutput(logits, _mean_map([one.evidence.float() for one in plain]), embedding)


def _looks(pixels: Tensor, views: Sequence[View]) -> Iterator[Tensor]:
    """The image itself, untouched, first; then its views, in float32 of the same scale where they are resampled."""
    yield pixels
    for view in views:
        if view == "flip":
            yield pixels.flip(-1)
        elif view == "rotate":
            yield _moved(pixels, angle=ROTATION)
            yield _moved(pixels, angle=-ROTATION)
        else:
            yield _moved(pixels, zoom=ZOOM)


def _moved(pixels: Tensor, angle: float = 0.0, zoom: float = 1.0) -> Tensor:
    """Turned about the centre by degrees, clockwise, and enlarged: (N, S, S) -> float32 (N, S, S)."""
    turn = torch.deg2rad(torch.tensor(angle, dtype=torch.float64))
    cosine, sine = turn.cos() / zoom, turn.sin() / zoom
    matrix = torch.stack([cosine, sine, cosine * 0, -sine, cosine, cosine * 0]).view(1, 2, 3)
    # Of one image, then shared: a matrix product over a batch may round otherwise in another batch size.
    grid = functional.affine_grid(matrix, [1, 1, *pixels.shape[1:]], align_corners=False).to(pixels.device)
    images = pixels.unsqueeze(1).to(torch.float32)
    moved = functional.grid_sample(
        images, grid.to(torch.float32).expand(len(images), -1, -1, -1), mode="bilinear", align_corners=False
    )
    return moved.squeeze(1)


def _mean_map(maps: Sequence[Tensor]) -> Tensor:
    """The mean of (N, F, h, w) with different h and w, at the largest of them."""
    height, width = (max(one.shape[axis] for one in maps) for axis in (2, 3))
    enlarged = [
        one
        if one.shape[2:] == (height, width)
        else functional.interpolate(one, size=(height, width), mode="bilinear", align_corners=False)
        for one in maps
    ]
    return torch.stack(enlarged).mean(dim=0)
