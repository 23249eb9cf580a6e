"""Heatmaps: Grad-CAM at the size of the image, and overlays of it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.imaging.preprocess import Grey, letterbox


def is_shown(probability: float, threshold: float | None) -> bool:
    """Whether a finding's heatmap is shown: only if the finding reaches its operating point.

    A heatmap is scaled by its own peak, so it looks convincing even where the network sees nothing.

    Args:
        probability: Calibrated, 0 to 1.
        threshold: The operating point; None or NaN if there is none, then nothing is shown.
    """
    return threshold is not None and bool(probability >= threshold)


def heatmap(evidence: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Grad-CAM of one finding at the size of the original image.

    Args:
        evidence: (h, w), the finding's plane of `chestai.model.classifier.NetworkOutput.evidence`.
        height, width: Of the original image in pixels; the padding of `preprocess.resize` is cut off.

    Returns:
        float32 (height, width), 0 to 1; all 0 if nothing supports the finding.
    """
    cam = np.maximum(evidence.astype(np.float32), 0)
    peak = float(cam.max())
    if peak > 0:
        cam /= peak
    side = max(height, width)
    top, left, _, _ = letterbox(height, width, side)
    square = cv2.resize(cam, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(square[top : top + height, left : left + width], dtype=np.float32)


def overlay(grey: Grey, cam: NDArray[np.float32], strength: float = 0.45) -> bytes:
    """A colour PNG of `blend`.

    Args:
        grey, cam, strength: As for `blend`.
    """
    ok, png = cv2.imencode(".png", blend(grey, cam, strength))
    if not ok:
        raise RuntimeError("OpenCV could not encode the overlay")
    return png.tobytes()


def blend(grey: Grey, cam: NDArray[np.float32], strength: float = 0.45) -> NDArray[np.uint8]:
    """The image with the heatmap on top; the higher the value, the stronger the colour.

    Args:
        grey: uint8 (H, W).
        cam: float (H, W) in 0 to 1, from `heatmap`.
        strength: Opacity where the heatmap is 1; 0 to 1.

    Returns:
        uint8 (H, W, 3): blue, green, red, as OpenCV orders colours.
    """
    colour = cv2.applyColorMap((cam * 255).astype(np.uint8), cv2.COLORMAP_TURBO).astype(np.float32)
    alpha = (strength * cam)[..., None]
    blended = grey[..., None].astype(np.float32) * (1 - alpha) + colour * alpha
    return blended.round().astype(np.uint8)
