"""Grad-CAM maps for any finding and their overlays."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chestai.network import Output
from chestai.pixels import Grey, fitted

CLOSED_FORM, GRADIENTS = "closed form", "gradients"


@dataclass(frozen=True)
class Maps:
    """Grad-CAM of a batch before its ReLU, for `heatmap`.

    values: float32 (N, F, h, w), on the features' grid, not scaled. method: `closed form` or `gradients`.
    """

    values: NDArray[np.float32]
    method: str


def maps(network: nn.Module, pixels: NDArray[np.uint8], layer: nn.Module | None = None) -> Maps:
    """Grad-CAM of every finding (Selvaraju et al., ICCV 2017).

    A network that returns `network.Output`, such as `network.Classifier`, gives all maps in one forward pass, without
    gradients: they are its evidence. Of any other the logits' gradients are followed back to a layer, finding by
    finding. Of a head that is linear over features averaged over space, both are the same values.

    Args:
        network: in evaluation mode; takes `uint8` (N, S, S), and returns `Output` or logits (N, F).
        pixels: `uint8` (N, S, S) from `chestai.pixels`.
        layer: the part of the network whose output (N, C, h, w) is explained; not needed where the network returns
            `Output`. Nothing after it may change that output in place.

    Raises:
        ValueError: the network returns logits and no layer is given, the layer gives no (N, C, h, w), or the network
            no (N, F).
        RuntimeError: an operation after the layer changes its output in place.
    """
    given = torch.from_numpy(pixels).to(next(network.parameters()).device)
    with torch.inference_mode():
        answer = network(given)
    if isinstance(answer, Output):
        return Maps(answer.evidence.float().cpu().numpy(), CLOSED_FORM)
    if layer is None:
        raise ValueError(f"{type(network).__name__} returns no evidence: its maps need a layer")
    return Maps(_by_gradients(network, given, layer), GRADIENTS)


def _by_gradients(network: nn.Module, given: Tensor, layer: nn.Module) -> NDArray[np.float32]:
    """(N, F, h, w) by one forward pass and a backward pass a finding, from the logits to the layer and no further."""
    from pytorch_grad_cam import GradCAM  # slow to import, and seldom needed

    features: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A leaf in place of the layer's output: gradients end here, also where all weights are frozen."""
        features.append(output.detach().requires_grad_())
        return features[-1]

    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = network(given)
            if logits.ndim != 2:
                raise ValueError(f"logits {tuple(logits.shape)} must be of shape (N, F)")
            if len(features) != 1 or features[0].ndim != 4:
                shapes = [tuple(one.shape) for one in features]
                raise ValueError(f"the layer must give (N, C, h, w) once in a forward pass, not {shapes}")
            gradients = [torch.autograd.grad(of_all, features, retain_graph=True)[0] for of_all in logits.sum(dim=0)]
    finally:
        handle.remove()
    with GradCAM(network, [layer]) as cam:
        planes = [cam.get_cam_image(given, layer, [], features[0], one.cpu().numpy()) for one in gradients]
    # The package averages gradients over space: times the cells, a linear head's maps are its evidence.
    cells = features[0].shape[2] * features[0].shape[3]
    return np.stack(planes, axis=1).astype(np.float32) * cells


def shown(probability: float, threshold: float | None) -> bool:
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
    top, left, _, _ = fitted(height, width, side)
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
