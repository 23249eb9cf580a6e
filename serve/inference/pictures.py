"""PNGs of a film for a reader's screen: the film itself, a finding's activation map, and both as an overlay."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.imaging.heatmap import heatmap, overlay
from chestai.imaging.preprocess import Grey

MAX_PIXELS = 1024 * 1024  # of a map or overlay, as a reader's screen shows a film; a response may hold many
DRAW_EXECUTOR = ThreadPoolExecutor(2, "draw")  # drawing takes 50 bytes a pixel, twice at a time at most


async def draw_overlay(grey: Grey, evidence: NDArray[np.float32]) -> bytes:
    """Draws a finding's Grad-CAM heatmap on the image, as a PNG of at most `MAX_PIXELS` pixels.

    Args:
        evidence: float32 (h, w), the finding's plane of `ScoreResult.evidence`.
    """
    return await _draw(lambda: _draw_overlay(grey, evidence))


async def draw_map(evidence: NDArray[np.float32], height: int, width: int) -> bytes:
    """Draws a finding's Grad-CAM heatmap alone, as a grey PNG that covers the whole film: 0 nothing, 255 its peak.

    Args:
        evidence: As for `draw_overlay`.
        height, width: Of the film in pixels; the PNG has the same shape and at most `MAX_PIXELS` pixels.
    """
    return await _draw(lambda: _draw_map(evidence, height, width))


async def draw_preview(grey: Grey, size: int) -> bytes:
    """Draws the film as a grey PNG whose longer side has at most `size` pixels."""
    return await _draw(lambda: _encode(_shrink(grey, size / max(grey.shape))))


async def _draw(draw: Callable[[], bytes]) -> bytes:
    return await asyncio.get_running_loop().run_in_executor(DRAW_EXECUTOR, draw)


def _draw_overlay(grey: Grey, evidence: NDArray[np.float32]) -> bytes:
    small = _shrink(grey, math.sqrt(MAX_PIXELS / grey.size))
    return overlay(small, heatmap(evidence, *small.shape))


def _draw_map(evidence: NDArray[np.float32], height: int, width: int) -> bytes:
    scale = min(1.0, math.sqrt(MAX_PIXELS / (height * width)))
    plane = heatmap(evidence, max(1, int(height * scale)), max(1, int(width * scale)))
    return _encode((plane * 255).round().astype(np.uint8))


def _shrink(grey: Grey, scale: float) -> Grey:
    if scale >= 1:
        return grey
    height, width = (max(1, int(side * scale)) for side in grey.shape)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _encode(grey: Grey) -> bytes:
    done, png = cv2.imencode(".png", grey)
    if not done:
        raise RuntimeError("OpenCV could not encode the picture")
    return png.tobytes()
