"""The normal thorax on a frontal film, as a small attenuation model in unit coordinates.

A film is a unit square: x runs from -0.5 (the patient's right, at the viewer's left) to 0.5, y from 0 (top)
to 1. Silhouettes are curves of x or y alone, evaluated on the pixel grid, so a film looks the same at any
resolution.
Tissue adds attenuation (white), air takes it away (dark).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.phantom.skeleton import bones
from chestai.phantom.thorax import LEFT, RIGHT, SIDES, Array, Thorax


@dataclass
class Film:
    """The layers of one film, each ``float32 (pixels, pixels)``; findings change them before they are summed.

    Attributes:
        x, y: pixel centres in unit coordinates, shapes (1, pixels) and (pixels, 1).
        lungs: per side, depth of aerated lung, 0 to about 1.
        fill: share of the lung's air replaced by fluid or tissue, 0 to 1.
        vessels: lung markings, 0 to 1.
        tissue: soft tissue outside the lungs; bone: ribs, clavicles, spine, scapulae.
        extra: attenuation added (or taken away) on top of all.
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
        """Side of the film in pixels."""
        return self.y.shape[0]

    def attenuation(self) -> Array:
        """The layers added up: about 0 in air outside the body, 0.35 in lung, 1 in the mediastinum."""
        air = (self.lungs[RIGHT] + self.lungs[LEFT]) * (1 - self.fill)
        # Bone stands out on air, less on soft tissue, and lies within the body.
        bone = self.bone * (0.35 + 0.65 * np.minimum(air, 1)) * np.minimum(2 * self.tissue, 1)
        return self.tissue - air * (0.66 - 0.24 * self.vessels) + bone + self.extra


def edge(depth: Array, reach: float) -> Array:
    """Thickness of a rounded body at ``depth`` inside its border: 0 outside, 1 from ``reach`` on."""
    inside = np.clip(depth * np.float32(1 / reach), 0, 1)
    return np.sqrt(inside * (2 - inside))


def normal_film(thorax: Thorax, pixels: int, view: str, rng: np.random.Generator) -> Film:
    """All normal anatomy of ``thorax`` on a film of ``pixels`` squared. ``view`` is "PA" or "AP"."""
    centres = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
    x, y = centres[None, :] - np.float32(0.5), centres[:, None]
    lungs, heart = {}, np.zeros((pixels, pixels), np.float32)
    for side in SIDES:
        u = side * x
        border = thorax.heart_border(side, y)
        beyond = np.where(u < 0, 0, edge(border - u, 0.035))
        below = np.clip((thorax.dome_of(side) + thorax.arch - y) / 0.1, 0, 1)
        heart += beyond * below
        lung = edge(thorax.wall(y) - u, 0.085) * edge(u - thorax.inner(y), 0.05) * edge(y - thorax.apex, 0.05)
        lung *= edge(thorax.diaphragm(side, u) - y, 0.03)
        lungs[side] = lung * (1 - 0.93 * beyond) * np.float32(thorax.aeration)
    return Film(
        thorax=thorax,
        x=x,
        y=y,
        lungs=lungs,
        fill=np.zeros((pixels, pixels), np.float32),
        vessels=_vessels(thorax, pixels, rng),
        tissue=_soft_tissue(thorax, x, y, view) + 0.07 * heart,
        bone=bones(thorax, pixels, view),
        extra=_airways(thorax, x, y),
    )


def _soft_tissue(thorax: Thorax, x: Array, y: Array, view: str) -> Array:
    """Trunk, neck, shoulders, breasts and abdomen, about 0 to 1."""
    u = np.abs(x)
    trunk = thorax.half_width + thorax.margin
    arms = 0.08 if view == "AP" else 0.02
    heights = np.array([0, 0.04, 0.1, 0.16, 0.24, 0.4, 0.6, 0.8, 1.0])
    widths = np.array([0.1, 0.15, 0.36, 0.47, 0.5, trunk + arms, trunk + 0.5 * arms, trunk, trunk + 0.02])
    outline = np.interp(y[:, 0], heights, widths).astype(np.float32)[:, None]
    outline = cv2.GaussianBlur(outline, (1, 0), sigmaX=1e-3, sigmaY=0.025 * len(y), borderType=cv2.BORDER_REPLICATE)
    # No tissue at the very border, so that a shifted film does not smear it.
    tissue = 0.93 * edge(np.minimum(outline, 0.49).reshape(-1, 1) - u, 0.14)
    abdomen = edge(y - max(thorax.dome), 0.2)
    breast_y, breast_u = thorax.dome[0] - 0.04, 0.58 * thorax.half_width
    swell = 1 - ((u - breast_u) / 0.17) ** 2 - ((y - breast_y) / 0.13) ** 2
    return tissue * (1 + 0.12 * abdomen) + np.float32(thorax.breast) * np.sqrt(np.clip(swell, 0, 1))


def _airways(thorax: Thorax, x: Array, y: Array) -> Array:
    """Air in the trachea, the main bronchi and the stomach: attenuation taken away."""
    carina = thorax.apex + 0.2
    trachea = edge(0.017 - np.abs(x), 0.012) * edge(carina - y, 0.02)
    bronchi = edge(0.012 - np.abs(np.abs(x) - 0.75 * (y - carina)), 0.01) * edge(y - carina, 0.01)
    bronchi = bronchi * edge(carina + 0.07 - y, 0.02)
    centre, size = thorax.stomach
    top = thorax.dome[1] + 0.035
    bubble = 1 - ((x - centre * thorax.half_width) / (0.075 * size)) ** 2 - ((y - top - 0.02) / (0.032 * size)) ** 2
    return -0.17 * trachea - 0.08 * bronchi - 0.22 * np.sqrt(np.clip(bubble, 0, 1)) * edge(y - top + 0.01, 0.015)


def _vessels(thorax: Thorax, pixels: int, rng: np.random.Generator) -> Array:
    """Branching lung markings fanning out from both hila, 0 to about 1, thinning outwards."""
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
    """Draw straight lines from each row of ``start`` to that of ``end`` on a ``uint8`` layer, 0 to 255.

    Lines thinner than a pixel are a pixel wide and fainter instead.
    """
    pixels = layer.shape[0]
    thickness = max(1, round(width * pixels))
    grey = round(255 * strength * min(1.0, width * pixels / thickness))
    points = np.stack([start, end], axis=1) + np.array([0.5, 0.0])
    fixed = np.round(points * pixels * 16).astype(np.int32)
    cv2.polylines(layer, list(fixed), False, grey, thickness, cv2.LINE_AA, shift=4)
