"""The normal thorax on a frontal film, as an attenuation model in unit coordinates.

A film is a unit square: x runs from -0.5 (the patient's right, on the viewer's left) to 0.5, and y from 0 (top) to 1.
Silhouettes are curves of x or y alone, evaluated on the pixel grid, so a film looks the same at any resolution.
Tissue adds attenuation (white); air removes it (dark).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.phantom.skeleton import draw_bones
from chestai.phantom.thorax import LEFT, RIGHT, SIDES, Array, Thorax


@dataclass
class Film:
    """The layers of one film, each `float32 (pixels, pixels)`. Findings change them before they are summed.

    Attributes:
        x, y: Pixel centres in unit coordinates, of shapes (1, pixels) and (pixels, 1).
        lungs: Depth of aerated lung by side, 0 to about 1.
        fill: Share of the lung's air that fluid or tissue replaces, 0 to 1.
        vessels: Lung markings, 0 to 1.
        tissue: Soft tissue outside the lungs.
        bone: Ribs, clavicles, spine and scapulae.
        extra: Attenuation to add to the sum of all other layers, or to remove from it.
    """

    thorax: Thorax
    x: Array
    y: Array
    lungs: dict[int, Array]
    fill: Array
    vessels: Array
    tissue: Array
    bone: Array
    extra: Array

    @property
    def pixels(self) -> int:
        """Returns the side of the film in pixels."""
        return self.y.shape[0]

    def attenuation(self) -> Array:
        """Returns the sum of all layers: about 0 in air outside the body, 0.35 in lung, 1 in the mediastinum."""
        air = (self.lungs[RIGHT] + self.lungs[LEFT]) * (1 - self.fill)
        # Bone shows most over air, less over soft tissue, and not outside the body.
        bone = self.bone * (0.35 + 0.65 * np.minimum(air, 1)) * np.minimum(2 * self.tissue, 1)
        return self.tissue - air * (0.66 - 0.24 * self.vessels) + bone + self.extra


def rounded_depth(depth: Array, reach: float) -> Array:
    """Computes the thickness of a rounded body at `depth` inside its border: 0 outside, 1 from `reach` inwards."""
    inside = np.clip(depth * np.float32(1 / reach), 0, 1)
    return np.sqrt(inside * (2 - inside))


def draw_normal_film(thorax: Thorax, pixels: int, view: str, rng: np.random.Generator) -> Film:
    """Draws all normal anatomy of a thorax on a film of (pixels, pixels); `view` is "PA" or "AP"."""
    centres = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
    x, y = centres[None, :] - np.float32(0.5), centres[:, None]
    lungs, heart = {}, np.zeros((pixels, pixels), np.float32)
    for side in SIDES:
        u = side * x
        border = thorax.heart_border(side, y)
        beyond = np.where(u < 0, 0, rounded_depth(border - u, 0.035))
        below = np.clip((thorax.dome_of(side) + thorax.arch - y) / 0.1, 0, 1)
        heart += beyond * below
        lung = (
            rounded_depth(thorax.wall(y) - u, 0.085)
            * rounded_depth(u - thorax.inner(y), 0.05)
            * rounded_depth(y - thorax.apex, 0.05)
        )
        lung *= rounded_depth(thorax.diaphragm(side, u) - y, 0.03)
        lungs[side] = lung * (1 - 0.93 * beyond) * np.float32(thorax.aeration)
    return Film(
        thorax=thorax,
        x=x,
        y=y,
        lungs=lungs,
        fill=np.zeros((pixels, pixels), np.float32),
        vessels=_draw_vessels(thorax, pixels, rng),
        tissue=_draw_soft_tissue(thorax, x, y, view) + 0.07 * heart,
        bone=draw_bones(thorax, pixels, view),
        extra=_draw_airways(thorax, x, y),
    )


def _draw_soft_tissue(thorax: Thorax, x: Array, y: Array, view: str) -> Array:
    """Draws trunk, neck, shoulders, breasts and abdomen, about 0 to 1."""
    u = np.abs(x)
    trunk = thorax.half_width + thorax.margin
    arms = 0.08 if view == "AP" else 0.02
    heights = np.array([0, 0.04, 0.1, 0.16, 0.24, 0.4, 0.6, 0.8, 1.0])
    widths = np.array([0.1, 0.15, 0.36, 0.47, 0.5, trunk + arms, trunk + 0.5 * arms, trunk, trunk + 0.02])
    outline = np.interp(y[:, 0], heights, widths).astype(np.float32)[:, None]
    outline = cv2.GaussianBlur(outline, (1, 0), sigmaX=1e-3, sigmaY=0.025 * len(y), borderType=cv2.BORDER_REPLICATE)
    # The border stays free of tissue, so that shifting the film does not smear it.
    tissue = 0.93 * rounded_depth(np.minimum(outline, 0.49).reshape(-1, 1) - u, 0.14)
    abdomen = rounded_depth(y - max(thorax.dome), 0.2)
    breast_y, breast_u = thorax.dome[0] - 0.04, 0.58 * thorax.half_width
    swell = 1 - ((u - breast_u) / 0.17) ** 2 - ((y - breast_y) / 0.13) ** 2
    return tissue * (1 + 0.12 * abdomen) + np.float32(thorax.breast) * np.sqrt(np.clip(swell, 0, 1))


def _draw_airways(thorax: Thorax, x: Array, y: Array) -> Array:
    """Draws the air in the trachea, main bronchi and stomach, as negative attenuation."""
    carina = thorax.apex + 0.2
    trachea = rounded_depth(0.017 - np.abs(x), 0.012) * rounded_depth(carina - y, 0.02)
    bronchi = rounded_depth(0.012 - np.abs(np.abs(x) - 0.75 * (y - carina)), 0.01) * rounded_depth(y - carina, 0.01)
    bronchi = bronchi * rounded_depth(carina + 0.07 - y, 0.02)
    centre, size = thorax.stomach
    top = thorax.dome[1] + 0.035
    bubble = 1 - ((x - centre * thorax.half_width) / (0.075 * size)) ** 2 - ((y - top - 0.02) / (0.032 * size)) ** 2
    return (
        -0.17 * trachea - 0.08 * bronchi - 0.22 * np.sqrt(np.clip(bubble, 0, 1)) * rounded_depth(y - top + 0.01, 0.015)
    )


def _draw_vessels(thorax: Thorax, pixels: int, rng: np.random.Generator) -> Array:
    """Draws lung markings that branch out from both hila and thin outwards, 0 to about 1."""
    layer = np.zeros((pixels, pixels), np.uint8)
    for side in SIDES:
        hilum_y = thorax.apex + (0.44 if side == LEFT else 0.48) * (thorax.dome_of(side) - thorax.apex)
        start = np.column_stack([np.full(7, side * 0.075), hilum_y + np.linspace(-0.03, 0.05, 7)])
        # Angles from straight up (-80 degrees) to straight down, measured from the outward horizontal.
        angle = np.deg2rad(np.linspace(-78, 80, 7) + rng.uniform(-10, 10, 7))
        width, length = 0.0115, 0.075
        for _ in range(5):
            reach = length * rng.uniform(0.7, 1.2, len(angle))
            end = start + reach[:, None] * np.column_stack([side * np.cos(angle), np.sin(angle)])
            draw_segments(layer, start, end, width, min(1.0, 0.25 + 55 * width))
            start = np.repeat(end, 2, axis=0)
            fork = np.tile([-1.0, 1.0], len(angle)) * rng.uniform(0.15, 0.5, 2 * len(angle))
            angle = np.repeat(angle, 2) + fork
            width, length = width * 0.64, length * 0.84
    markings = cv2.GaussianBlur(layer, (0, 0), 0.0028 * pixels).astype(np.float32)
    return markings * np.float32(thorax.markings / 255)


def draw_segments(
    layer: Array, start: NDArray[np.float64], end: NDArray[np.float64], width: float, strength: float
) -> None:
    """Draws a straight line from each row (x, y) of `start` to the same row of `end` on a `uint8` layer.

    A line thinner than one pixel is drawn one pixel wide and fainter.

    Args:
        width: Width of the lines in film sides.
        strength: Brightness, 0 to 1.
    """
    pixels = layer.shape[0]
    thickness = max(1, round(width * pixels))
    grey = round(255 * strength * min(1.0, width * pixels / thickness))
    points = np.stack([start, end], axis=1) + np.array([0.5, 0.0])
    fixed = np.round(points * pixels * 16).astype(np.int32)
    cv2.polylines(layer, list(fixed), False, grey, thickness, cv2.LINE_AA, shift=4)
