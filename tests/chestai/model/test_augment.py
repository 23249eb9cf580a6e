"""Augmentation against OpenCV's transforms and filters, and what it promises about seeds and batches."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from chestai.config.schema import Augment
from chestai.model.augment import DRAWS, augment, draw

NONE = {
    "scale": 0.0,
    "rotation": 0.0,
    "shift": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "clahe": 0.0,
    "denoise": 0.0,
    "flip": 0.0,
}
DEFAULT = NONE | {"scale": 0.1, "rotation": 5.0, "shift": 0.04, "brightness": 0.1, "contrast": 0.2}
ALL = DEFAULT | {"clahe": 0.5, "denoise": 0.5, "flip": 0.5}


def settings(values: dict[str, float], strength: float = 1.0, **changes: float) -> Augment:
    return Augment.model_validate({"strength": strength, **values, **changes})


def drawn(**values: float) -> Tensor:
    """Draws of one image that change nothing but what is named."""
    row = torch.full((1, len(DRAWS)), 0.5)
    for name, value in values.items():
        row[0, DRAWS.index(name.replace("_", " "))] = value
    return row


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth structure, a different one in each image."""
    noise = np.random.default_rng(1).integers(0, 256, (16, 97, 97), dtype=np.uint8)
    smooth = [cv2.GaussianBlur(one, (0, 0), 3) for one in noise]
    return torch.from_numpy(np.stack([cv2.convertScaleAbs(one, alpha=2.0, beta=-128.0) for one in smooth]))


def difference(ours: Tensor, theirs: np.ndarray) -> np.ndarray:
    return np.abs(ours.numpy().astype(int) - theirs.astype(int))


def test_each_image_has_its_own_seeded_draw_and_no_flip_by_default() -> None:
    half = torch.zeros(16, 64, 64, dtype=torch.uint8)
    half[:, :, :32] = 200  # bright on the left
    first, again, other = (
        augment(half, draw(16, torch.Generator().manual_seed(seed)), settings(DEFAULT)) for seed in (1, 1, 2)
    )
    assert first.dtype == torch.uint8 and first.shape == half.shape
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({one.numpy().tobytes() for one in first}) == 16
    left, right = first[:, 16:48, 8:24].float().mean((1, 2)), first[:, 16:48, 40:56].float().mean((1, 2))
    assert (left > right + 50).all()


@pytest.mark.parametrize("size", [32, 97, 224])
def test_image_does_not_depend_on_its_batch(size: int) -> None:
    batch = torch.randint(0, 256, (13, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    draws = draw(13, torch.Generator().manual_seed(3))
    whole = augment(batch, draws, settings(ALL))
    for rows in (slice(0, 7), slice(7, 13), slice(4, 5)):
        assert torch.equal(augment(batch[rows], draws[rows], settings(ALL)), whole[rows])


def test_rand_augment_changes_each_image_by_its_own_seed_and_mirrors_none() -> None:
    batch = torch.zeros(40, 64, 64, dtype=torch.uint8)
    batch[:, 8:56, 8:32] = 160  # bright on the left
    draws, only = draw(40, torch.Generator().manual_seed(3)), settings(NONE, operations=2, magnitude=6.0)
    torch.manual_seed(11)
    state = torch.get_rng_state()
    whole = augment(batch, draws, only)
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator is left as it was"
    assert whole.dtype == torch.uint8 and whole.shape == batch.shape
    changed = [image for image in whole if not torch.equal(image, batch[0])]
    assert len(changed) > 20 and len({image.numpy().tobytes() for image in changed}) > 10
    for rows in (slice(0, 7), slice(7, 40), slice(4, 5)):
        assert torch.equal(augment(batch[rows], draws[rows], only), whole[rows]), "whatever else is in the batch"
    left, right = whole[:, 16:48, 12:28].float().mean((1, 2)), whole[:, 16:48, 40:56].float().mean((1, 2))
    assert (left >= right).all()


def test_rand_augment_follows_torchvision_and_strength_scales_its_magnitude(images: Tensor) -> None:
    draws = draw(16, torch.Generator().manual_seed(8))
    found = augment(images, draws, settings(NONE, operations=3, magnitude=10.0, strength=0.5))
    policy = v2.RandAugment(3, 5, interpolation=InterpolationMode.BILINEAR, fill=0)
    for image, row, result in zip(images, draws, found, strict=True):
        torch.manual_seed(int(row[DRAWS.index("seed")].double() * 2**24))
        assert torch.equal(policy(image[None])[0], result)


def test_draws_of_earlier_versions_are_unchanged() -> None:
    """Runs that were begun before RandAugment continue to the same numbers."""
    before = torch.rand((5, 9), generator=torch.Generator().manual_seed(4))
    assert torch.equal(draw(5, torch.Generator().manual_seed(4))[:, :9], before)


def test_keeps_its_input_and_strength_0_changes_nothing(images: Tensor) -> None:
    before, draws = images.clone(), draw(16, torch.Generator().manual_seed(1))
    augment(images, draws, settings(ALL))
    assert torch.equal(images, before)
    assert augment(images, draws, settings(ALL, strength=0.0, clahe=1.0)) is images
    assert torch.equal(augment(images, draws, settings(NONE)), images)


def test_accepts_no_images() -> None:
    nothing = torch.zeros(0, 64, 64, dtype=torch.uint8)
    assert augment(nothing, draw(0, torch.Generator()), settings(ALL)).shape == (0, 64, 64)


@pytest.mark.parametrize(
    ("name", "side", "degrees", "scale", "shift"),
    [
        ("rotation", 1.0, 10.0, 1.0, (0.0, 0.0)),
        ("rotation", 0.0, -10.0, 1.0, (0.0, 0.0)),
        ("scale", 1.0, 0.0, 1.2, (0.0, 0.0)),
        ("scale", 0.25, 0.0, 0.9, (0.0, 0.0)),
        ("shift_x", 1.0, 0.0, 1.0, (0.1, 0.0)),
        ("shift_y", 0.0, 0.0, 1.0, (0.0, -0.1)),
    ],
)
def test_geometry_matches_opencv(
    images: Tensor, name: str, side: float, degrees: float, scale: float, shift: tuple[float, float]
) -> None:
    """At strength 2, of half of the magnitudes; degrees clockwise, about the centre, black outside."""
    image = images[0].numpy()
    matrix = cv2.getRotationMatrix2D((48.0, 48.0), -degrees, scale)
    matrix[:, 2] += np.array(shift) * 97
    expected = cv2.warpAffine(image, matrix, (97, 97), flags=cv2.INTER_LINEAR)
    half = settings(NONE, strength=2.0, rotation=5.0, scale=0.1, shift=0.05)
    off = difference(augment(images[:1], drawn(**{name: side}), half)[0], expected)
    assert off.mean() < 0.5 and np.quantile(off, 0.98) <= 3  # OpenCV's weights have 5 bits; edges may differ


def test_flip_follows_its_probability(images: Tensor) -> None:
    flipped = augment(images[:1], drawn(flip=0.1), settings(NONE, flip=0.2))
    assert torch.equal(flipped, images[:1].flip(2))
    assert torch.equal(augment(images[:1], drawn(flip=0.3), settings(NONE, flip=0.2)), images[:1])
    assert torch.equal(augment(images[:1], drawn(flip=0.3), settings(NONE, strength=2.0, flip=0.2)), flipped)


def test_brightness_and_contrast_follow_their_formulas(images: Tensor) -> None:
    image = images[:1].double()
    brighter = augment(images[:1], drawn(brightness=1.0), settings(NONE, brightness=0.1))
    assert difference(brighter, (image + 25.5).clamp(max=255).numpy()).max() <= 1
    flatter = augment(images[:1], drawn(contrast=0.25), settings(NONE, contrast=0.2))
    assert difference(flatter, (127.5 + 0.9 * (image - 127.5)).numpy()).max() <= 1
    no_negative = augment(images[:1], drawn(contrast=0.0), settings(NONE, strength=2.0, contrast=0.9))
    assert (no_negative == no_negative[0, 0, 0]).all()


def test_border_moved_into_the_image_is_black(images: Tensor) -> None:
    moved = augment(images[:1], drawn(shift_x=1.0, brightness=1.0), settings(NONE, shift=0.2, brightness=0.5))
    assert not moved[0, :, :18].any() and moved[0, :, 21:].min() > 100


@pytest.mark.parametrize("size", [96, 97, 100, 225])
def test_clahe_matches_opencv_on_the_images_drawn(size: int) -> None:
    ramp = np.linspace(60, 120, size, dtype=np.float32)
    texture = cv2.GaussianBlur(np.random.default_rng(3).normal(0, 60, (size, size)).astype(np.float32), (0, 0), 2)
    image = np.clip(ramp + texture, 0, 255).astype(np.uint8)
    batch = torch.from_numpy(np.stack([image, image]))
    draws = torch.cat([drawn(clahe=0.1), drawn(clahe=0.9)])
    equalised, same = augment(batch, draws, settings(NONE, clahe=0.5))
    assert torch.equal(same, batch[1])
    expected = cv2.createCLAHE(2.0, (8, 8)).apply(image)
    assert difference(equalised, expected).mean() < 0.2 * np.abs(expected.astype(int) - image).mean()


def test_denoise_equals_opencv_median_on_the_images_drawn() -> None:
    image = np.random.default_rng(2).integers(0, 256, (50, 50), dtype=np.uint8)
    batch = torch.from_numpy(np.stack([image, image]))
    draws = torch.cat([drawn(denoise=0.9), drawn(denoise=0.1)])
    same, filtered = augment(batch, draws, settings(NONE, denoise=0.5))
    assert torch.equal(same, batch[0])
    assert np.array_equal(filtered[1:-1, 1:-1].numpy(), cv2.medianBlur(image, 3)[1:-1, 1:-1])
