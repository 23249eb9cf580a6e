"""Training augmentation, a draw per sample, on whatever device the batch is on.

No horizontal flip: it would put the heart on the right, and laterality matters.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

ROTATION_DEG = 5.0
SCALE = 0.10
SHIFT = 0.04  # share of a side
BRIGHTNESS = 0.10  # share of full scale
CONTRAST = 0.20


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Random rotation, scale, shift, contrast and brightness.

    Args:
        pixels: uint8 (N, S, S).
        generator: a CPU generator; the same state gives the same batch.

    Returns:
        uint8 (N, S, S) on the same device; what moves in from outside is black.
    """
    count = len(pixels)
    draws = (2 * torch.rand((6, count), generator=generator) - 1).to(pixels.device)
    angle = draws[0] * math.radians(ROTATION_DEG)
    scale = 1 + draws[1] * SCALE
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift = 2 * SHIFT * draws[2:4]  # the grid spans -1 to 1
    matrix = torch.stack(
        [torch.stack([cosine, -sine, shift[0]], dim=1), torch.stack([sine, cosine, shift[1]], dim=1)], dim=1
    )
    image = pixels.unsqueeze(1).float()
    grid = functional.affine_grid(matrix, list(image.shape), align_corners=False)
    moved = functional.grid_sample(image, grid, mode="bilinear", align_corners=False).squeeze(1)
    contrast = (1 + CONTRAST * draws[4]).view(-1, 1, 1)
    brightness = (255 * BRIGHTNESS * draws[5]).view(-1, 1, 1)
    return ((moved - 127.5) * contrast + 127.5 + brightness).round().clamp(0, 255).to(torch.uint8)
