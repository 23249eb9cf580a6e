"""Draws the bones of the normal thorax: ribs, clavicles, scapulae and spine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from chestai.phantom.thorax import Thorax

RIBS = 10
_STEPS = 20


def draw_bones(thorax: Thorax, pixels: int, view: str) -> NDArray[np.float32]:
    """Draws all bones as attenuation `float32 (pixels, pixels)`, about 0 to 0.3."""
    rear, front = np.zeros((2, pixels, pixels), np.uint8)
    for side in (-1, 1):
        for rib in range(RIBS):
            behind, before = _trace_rib(thorax, side, rib)
            _draw_ribbon(rear, behind, 0.019, 0.6)
            if rib < 7:
                _draw_ribbon(front, before, 0.021, 0.5)
        _draw_ribbon(rear, _trace_clavicle(thorax, side, view), 0.021, 0.8)
    layer = np.maximum(rear, front // 2)
    layer = cv2.add(layer, _draw_scapulae(thorax, pixels, view))
    soft = cv2.GaussianBlur(layer, (0, 0), 0.0022 * pixels).astype(np.float32)
    return np.float32(0.24 * thorax.bone_density / 255) * soft + _draw_spine(thorax, pixels)


def _trace_rib(thorax: Thorax, side: int, rib: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Traces the posterior arc of a rib (spine to chest wall) and its anterior arc (wall to cartilage)."""
    q = np.linspace(0, 1, _STEPS)
    head = thorax.apex - 0.025 + rib * (thorax.floor - thorax.apex) / (RIBS + 0.5)
    fall = thorax.rib_slope * (0.075 + 0.006 * rib)
    y = head - 0.045 * np.sin(np.pi * q) * (1 - q) + fall * q**2.2
    reach = float(thorax.wall(max(y[-1], thorax.apex + 0.02))) + 0.006
    u = 0.025 + (reach - 0.025) * np.sin(np.pi / 2 * q) ** 0.92
    behind = np.column_stack([side * u, y])
    inwards = reach - (reach - 0.1 - 0.012 * rib) * (1 - np.cos(np.pi / 2 * q)) - 0.01 * q
    down = y[-1] + thorax.rib_slope * (0.11 + 0.004 * rib) * np.sin(np.pi / 2 * q) ** 1.1
    return behind, np.column_stack([side * inwards, down])


def _trace_clavicle(thorax: Thorax, side: int, view: str) -> NDArray[np.float64]:
    """Traces an S-shaped clavicle, which an AP film projects higher."""
    q = np.linspace(0, 1, _STEPS)
    y = thorax.apex + (0.045 if view == "PA" else 0.015) - 0.03 * q - 0.014 * np.sin(2 * np.pi * q)
    return np.column_stack([side * (0.03 + (thorax.half_width + 0.02) * q), y])


def _draw_ribbon(layer: NDArray[np.uint8], path: NDArray[np.float64], width: float, grey: float) -> None:
    """Draws a bone along `path` as a filled band with brighter cortical edges."""
    pixels = layer.shape[0]
    along = np.gradient(path, axis=0)
    normal = np.column_stack([-along[:, 1], along[:, 0]]) / np.linalg.norm(along, axis=1, keepdims=True)
    outline = np.concatenate([path + normal * width / 2, (path - normal * width / 2)[::-1]]) + np.array([0.5, 0.0])
    fixed = np.round(outline * pixels * 16).astype(np.int32)
    cv2.fillPoly(layer, [fixed], round(255 * grey * 0.72), cv2.LINE_AA, shift=4)
    cortices = [fixed[: len(path)], fixed[len(path) :]]
    cv2.polylines(layer, cortices, False, round(255 * grey), max(1, pixels // 300), cv2.LINE_AA, shift=4)


def _draw_scapulae(thorax: Thorax, pixels: int, view: str) -> NDArray[np.uint8]:
    """Draws faint shoulder blades: beside the lungs on a PA film, over their outer edge on an AP film."""
    layer = np.zeros((pixels, pixels), np.uint8)
    shift = 0.045 if view == "PA" else -0.005
    blade = np.array([[0.0, 0.0], [0.13, -0.03], [0.12, 0.05], [0.06, 0.17], [0.025, 0.27], [0.0, 0.25], [-0.015, 0.1]])
    for side in (-1, 1):
        points = blade + np.array([thorax.half_width - 0.055 + shift, thorax.apex + 0.07])
        fixed = np.round((points * np.array([side, 1]) + np.array([0.5, 0])) * pixels * 16).astype(np.int32)
        cv2.fillPoly(layer, [fixed], 42, cv2.LINE_AA, shift=4)
        cv2.polylines(layer, [fixed], True, 78, max(1, pixels // 200), cv2.LINE_AA, shift=4)
    return layer


def _draw_spine(thorax: Thorax, pixels: int) -> NDArray[np.float32]:
    """Draws vertebral bodies separated by discs, in the midline."""
    centres = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
    x, y = np.abs(centres - 0.5)[None, :], centres[:, None]
    pitch = (thorax.floor - thorax.apex) / 11
    body = 0.5 + 0.5 * np.tanh(3 * (np.cos(2 * np.pi * (y - thorax.apex) / pitch) + 0.55))
    column = np.clip((0.037 - x) / 0.006, 0, 1)
    return np.float32(0.1 * thorax.bone_density) * (column * (0.45 + 0.55 * body)).astype(np.float32)
