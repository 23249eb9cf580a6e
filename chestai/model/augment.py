"""Training augmentation: random per image, on whatever device the batch is on.

What is random is drawn for a whole step at once and each worker takes its rows, so that an image is augmented the
same way however many workers share the step.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from chestai.config.schema import Augment

DRAWS = ("scale", "rotation", "shift x", "shift y", "contrast", "brightness", "clahe", "denoise", "flip", "seed")
SEEDS = 2**24  # as many as a float32 in [0, 1) can tell apart

CLIP_LIMIT = 2.0  # of CLAHE, in multiples of a flat histogram's height
TILES = (8, 8)
MID_GREY = 127.5


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Random numbers for `count` images: float32 (count, D) in [0, 1), on the CPU, as is the generator.

    The seed of what RandAugment draws is drawn last, so that the others are what they were before it existed.
    """
    others = torch.rand((count, len(DRAWS) - 1), generator=generator)
    return torch.cat([others, torch.rand((count, 1), generator=generator)], dim=1)


def augment(pixels: Tensor, draws: Tensor, settings: Augment) -> Tensor:
    """Denoise, CLAHE, contrast, brightness; scale, rotation, shift and flip in one resampling; then RandAugment.

    A magnitude in the settings is the most that can happen, either way; 0.5 in the draws is no change.
    `settings.strength` multiplies magnitudes and probabilities, the latter up to 1.

    Args:
        pixels: uint8 (N, S, S); left as it is.
        draws: float (N, D) in [0, 1) on the CPU, from `draw`.
        settings: section `augment` of the configuration.

    Returns:
        uint8 (N, S, S) on the same device; what moves in from outside is black. An image's result depends on its
        own draws alone, not on the rest of the batch. At strength 0, `pixels` itself.
    """
    if settings.strength == 0:
        return pixels
    # In float64 on the CPU: the same for any batch size and device once rounded to float32.
    scale, rotation, shift_x, shift_y, contrast, brightness, clahe, denoise, flip, seed = draws.double().unbind(1)
    strength = settings.strength
    images = pixels.float()

    _replace(images, denoise < settings.denoise * strength, _median)
    _replace(images, clahe < settings.clahe * strength, _clahe)

    gain = (1 + settings.contrast * strength * _signed(contrast)).clamp(min=0)
    offset = MID_GREY * (1 - gain) + 255 * settings.brightness * strength * _signed(brightness)
    images.mul_(_per_image(gain, images)).add_(_per_image(offset, images)).clamp_(0, 255)

    matrix = _matrix(
        scale=1 + settings.scale * strength * _signed(scale),
        angle=math.radians(settings.rotation) * strength * _signed(rotation),
        shift_x=settings.shift * strength * _signed(shift_x),
        shift_y=settings.shift * strength * _signed(shift_y),
        mirrored=flip < settings.flip * strength,
    )
    grid = _grid(matrix.to(images), images.shape[-1])
    moved = functional.grid_sample(images.unsqueeze(1), grid, mode="bilinear", align_corners=False)
    result = moved.squeeze(1).round_().to(torch.uint8)
    return _rand_augment(result, seed, settings) if settings.operations else result


def _rand_augment(images: Tensor, seeds: Tensor, settings: Augment) -> Tensor:
    """A few operations of one magnitude, drawn anew for each image: uint8 (N, S, S), seeds (N,) in [0, 1).

    Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", CVPR Workshops 2020.
    None of torchvision's operations mirrors an image. What moves in from outside is black.
    """
    from torchvision.transforms import InterpolationMode, v2  # slow to import, seldom used

    magnitude = min(30, round(settings.magnitude * settings.strength))
    policy = v2.RandAugment(settings.operations, magnitude, interpolation=InterpolationMode.BILINEAR, fill=0)
    results = []
    with torch.random.fork_rng(devices=[]):  # it draws from torch's own generator, on the CPU
        for image, seed in zip(images, (seeds * SEEDS).long().tolist(), strict=True):
            torch.manual_seed(seed)
            results.append(policy(image.unsqueeze(0)).squeeze(0))
    return torch.stack(results) if results else images


def _signed(draws: Tensor) -> Tensor:
    return 2 * draws - 1


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images).view(-1, 1, 1)


def _matrix(scale: Tensor, angle: Tensor, shift_x: Tensor, shift_y: Tensor, mirrored: Tensor) -> Tensor:
    """Where in the source each place of the result is: (N, 2, 3), in units in which the image spans -1 to 1.

    Args:
        scale: (N,), above 1 enlarges.
        angle: (N,) in radians, clockwise on the screen.
        shift_x, shift_y: (N,) in sides, to the right and down.
        mirrored: bool (N,).
    """
    side = torch.where(mirrored, -1.0, 1.0)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([side * cosine, sine, -side * sine, cosine], dim=1).view(-1, 2, 2) / scale.view(-1, 1, 1)
    shift = 2 * torch.stack([shift_x, shift_y], dim=1).unsqueeze(2)
    return torch.cat([turn, -turn @ shift], dim=2)


def _grid(matrix: Tensor, size: int) -> Tensor:
    """(N, S, S, 2): like `functional.affine_grid`, whose matrix product may round otherwise in another batch size."""
    centres = (torch.arange(size, device=matrix.device, dtype=matrix.dtype) * 2 + 1) / size - 1
    along = matrix[:, :, 0, None] * centres
    down = matrix[:, :, 1, None] * centres + matrix[:, :, 2, None]
    grid = matrix.new_empty((len(matrix), size, size, 2))
    for axis in (0, 1):
        torch.add(along[:, axis, None, :], down[:, axis, :, None], out=grid[..., axis])
    return grid


def _replace(images: Tensor, chosen: Tensor, process: Callable[[Tensor], Tensor]) -> None:
    """Process only the chosen images, bool (N,) on the CPU, in place."""
    rows = chosen.nonzero().squeeze(1).to(images.device)
    if len(rows):
        images[rows] = process(images[rows].unsqueeze(1)).squeeze(1)


def _median(images: Tensor) -> Tensor:
    from kornia.filters import median_blur  # slow to import, seldom used

    return median_blur(images, (3, 3))


def _clahe(images: Tensor) -> Tensor:
    """Contrast-limited adaptive histogram equalisation: sites differ in their post-processing."""
    from kornia.enhance import equalize_clahe

    return equalize_clahe(images / 255, CLIP_LIMIT, TILES) * 255
