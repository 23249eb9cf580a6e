"""Grad-CAM of every finding of a network, in closed form or by gradients."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chestai.model.classifier import NetworkOutput

CLOSED_FORM, GRADIENTS = "closed form", "gradients"


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM of a batch before its ReLU, for `chestai.imaging.heatmap.heatmap`.

    values: float32 (N, F, h, w), on the grid of the features, not scaled. method: `closed form` or `gradients`.
    """

    values: NDArray[np.float32]
    method: str


def grad_cam(network: nn.Module, pixels: NDArray[np.uint8], layer: nn.Module | None = None) -> GradCam:
    """Computes Grad-CAM of every finding (Selvaraju et al., ICCV 2017).

    A network that returns `NetworkOutput`, such as a `Classifier`, gives all maps in one forward pass, without
    gradients: they are its evidence. For any other network the gradients of the logits are followed back to a layer,
    finding by finding. For a head that is linear over features averaged over space, both give the same values.

    Args:
        network: In evaluation mode; takes uint8 (N, S, S), and returns `NetworkOutput` or logits (N, F).
        pixels: uint8 (N, S, S) from `chestai.imaging.preprocess`.
        layer: The module whose output (N, C, h, w) is explained; not needed for a network that returns `NetworkOutput`.
            Nothing after it may change that output in place.

    Raises:
        ValueError: The network returns logits and no layer is given, the layer's output is not (N, C, h, w), or the
            network's is not (N, F).
        RuntimeError: An operation after the layer changes its output in place.
    """
    images = torch.from_numpy(pixels).to(next(network.parameters()).device)
    with torch.inference_mode():
        output = network(images)
    if isinstance(output, NetworkOutput):
        return GradCam(output.evidence.float().cpu().numpy(), CLOSED_FORM)
    if layer is None:
        raise ValueError(f"{type(network).__name__} returns no evidence: its maps need a layer")
    return GradCam(_by_gradients(network, images, layer), GRADIENTS)


def _by_gradients(network: nn.Module, images: Tensor, layer: nn.Module) -> NDArray[np.float32]:
    """(N, F, h, w) by one forward pass and one backward pass per finding, from the logits to the layer."""
    from pytorch_grad_cam import GradCAM  # slow to import, and seldom needed

    features: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Replaces the layer's output by a leaf: gradients end here, even if all weights are frozen."""
        features.append(output.detach().requires_grad_())
        return features[-1]

    handle = layer.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = network(images)
            if logits.ndim != 2:
                raise ValueError(f"logits {tuple(logits.shape)} must be of shape (N, F)")
            if len(features) != 1 or features[0].ndim != 4:
                shapes = [tuple(feature.shape) for feature in features]
                raise ValueError(f"the layer must give (N, C, h, w) once in a forward pass, not {shapes}")
            gradients = [torch.autograd.grad(of_all, features, retain_graph=True)[0] for of_all in logits.sum(dim=0)]
    finally:
        handle.remove()
    with GradCAM(network, [layer]) as cam:
        planes = [cam.get_cam_image(images, layer, [], features[0], gradient.cpu().numpy()) for gradient in gradients]
    # The package averages gradients over space: times the cells, a linear head's maps are its evidence.
    cells = features[0].shape[2] * features[0].shape[3]
    return np.stack(planes, axis=1).astype(np.float32) * cells
