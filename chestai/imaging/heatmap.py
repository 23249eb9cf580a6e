"""TODO"""

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.imaging.preprocess import Grey, letterbox


def is_shown(probability: float, threshold: float | None) -> bool:
    """Whether a finding's map is shown: only where the finding reaches its operating point; never without one.

    A map is scaled by its own peak, and so looks convincing even where the network sees nothing.

    Args:
        probability: calibrated, 0 to 1.
        threshold: the operating point; None or NaN for none.
    """
    return threshold is not None and bool(probability >= threshold)


def heatmap(evidence: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Grad-CAM of one finding at the original image's size.

    Args:
        evidence: (h, w), the finding's plane of `network.Output.evidence`.
        height, width: of the original image in pixels; the padding that `pixels.resize` added is cut off.

    Returns:
        float32 (height, width) in 0 to 1; all 0 where nothing speaks for the finding.
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
    """A colour PNG of the image with the map on top; the colour is the stronger, the more the map says.

    Args:
        grey: uint8 (H, W).
        cam: float (H, W) in 0 to 1, from `heatmap`.
        strength: opacity of the map where it is 1, 0 to 1.
    """
    colour = cv2.applyColorMap((cam * 255).astype(np.uint8), cv2.COLORMAP_TURBO).astype(np.float32)
    alpha = (strength * cam)[..., None]
    blended = grey[..., None].astype(np.float32) * (1 - alpha) + colour * alpha
    ok, png = cv2.imencode(".png", blended.round().astype(np.uint8))
    if not ok:
        raise RuntimeError("OpenCV could not encode the overlay")
    return png.tobytes()
