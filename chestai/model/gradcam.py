"""Grad-CAM maps for any finding and their overlays."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chestai.model.classifier import NetworkOutput

CLOSED_FORM, GRADIENTS = "closed form", "gradients"


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM of a batch before its ReLU, for `heatmap`.

    values: float32 (N, F, h, w), on the features' grid, not scaled. method: `closed form` or `gradients`.
    """

    values: NDArray[np.float32]
    method: str


def grad_cam(network: nn.Module, pixels: NDArray[np.uint8], layer: nn.Module | None = None) -> GradCam:
    """Grad-CAM of every finding (Selvaraju et al., ICCV 2017).

    A network that returns `network.Output`, such as `network.Classifier`, gives all maps in one forward pass, without
    gradients: they are its evidence. Of any other the logits' gradients are followed back to a layer, finding by
    finding. Of a head that is linear over features averaged over space, both are the same values.

    Args:
        network: in evaluation mode; takes `uint8` (N, S, S), and returns `Output` or logits (N, F).
        pixels: `uint8` (N, S, S) from `chestai.imaging.preprocess`.
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
    if isinstance(answer, NetworkOutput):
        return GradCam(answer.evidence.float().cpu().numpy(), CLOSED_FORM)
    if layer is None:
        raise ValueError(f"{type(network).__name__} returns no evidence: its maps need a layer")
    return GradCam(_by_gradients(network, given, layer), GRADIENTS)


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
