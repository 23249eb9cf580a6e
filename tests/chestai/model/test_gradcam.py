"""Maps of any network: in closed form where its head is linear, by gradients where it is not."""

from collections.abc import Iterator
from math import nan

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from chestai.imaging.heatmap import heatmap, is_shown
from chestai.model import gradcam
from chestai.model.classifier import Classifier, NetworkOutput
from chestai.model.ensemble import Ensemble

FINDINGS, SIZE = 4, 64


class Logits(nn.Module):
    """The logits alone, of pixels with or without a channel (which pytorch-grad-cam asks for)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.network(pixels[:, 0] if pixels.ndim == 4 else pixels)
        return output.logits if isinstance(output, NetworkOutput) else output


class Perceptron(nn.Module):
    """A head that is not linear over its features, and whose ReLU changes nothing in place unless asked to."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 12, 3, stride=4, padding=1), nn.BatchNorm2d(12))
        self.relu = nn.ReLU(inplace)
        self.head = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, FINDINGS))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.relu(self.features(pixels.unsqueeze(1).float() / 255 - 0.5)).mean((2, 3)))


def classifier(backbone: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(backbone, FINDINGS, SIZE, mean=(0.5,), std=(0.25,)).eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose by threads, and more so where other work keeps the cores busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def batch() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def linear() -> Classifier:
    return classifier("resnet10t")


@pytest.fixture
def perceptron() -> Perceptron:
    torch.manual_seed(1)
    return Perceptron().eval()


def theirs(network: nn.Module, layer: nn.Module, batch: NDArray[np.uint8], finding: int) -> NDArray[np.float32]:
    """The maps (N, S, S) of pytorch-grad-cam."""
    with GradCAM(Logits(network), [layer]) as cam:
        return cam(torch.from_numpy(batch).unsqueeze(1).float(), [ClassifierOutputTarget(finding)] * len(batch))


def assert_same_maps(ours: gradcam.GradCam, reference: NDArray[np.float32], finding: int) -> None:
    """Each image's map, enlarged and between its own extremes, as the package scales it."""
    for plane, expected in zip(ours.values[:, finding], reference, strict=True):
        cam = heatmap(plane, SIZE, SIZE)
        spread = np.ptp(cam)
        stretched = (cam - cam.min()) / spread if spread else cam
        np.testing.assert_allclose(stretched, expected, atol=1e-5)


class TestClosedForm:
    @pytest.mark.parametrize("backbone", ["resnet10t", "densenet121"])
    def test_equals_pytorch_grad_cam(self, backbone: str, batch: NDArray[np.uint8]) -> None:
        network = classifier(backbone)
        ours = gradcam.grad_cam(network, batch)
        assert ours.method == "closed form" and ours.values.dtype == np.float32
        assert ours.values.shape == (3, FINDINGS, SIZE // 32, SIZE // 32)
        assert (ours.values > 0).any() and np.ptp(ours.values) > 0, "empty or flat maps would prove nothing"
        for finding in (0, FINDINGS - 1):
            assert_same_maps(ours, theirs(network, network.features, batch, finding), finding)

    def test_equals_the_evidence(self, linear: Classifier, batch: NDArray[np.uint8]) -> None:
        with torch.no_grad():
            expected = linear(torch.from_numpy(batch)).evidence
        np.testing.assert_allclose(gradcam.grad_cam(linear, batch, layer=linear.features).values, expected, atol=1e-6)

    def test_ensemble_has_closed_form_maps(self, linear: Classifier, batch: NDArray[np.uint8]) -> None:
        other = classifier("resnet10t", seed=1)
        ours = gradcam.grad_cam(Ensemble([linear, other]), batch)
        assert ours.method == "closed form"
        mean = (gradcam.grad_cam(linear, batch).values + gradcam.grad_cam(other, batch).values) / 2
        np.testing.assert_allclose(ours.values, mean, atol=1e-6)


class TestGradients:
    def test_equals_pytorch_grad_cam(self, perceptron: Perceptron, batch: NDArray[np.uint8]) -> None:
        ours = gradcam.grad_cam(perceptron, batch, perceptron.features)
        assert ours.method == "gradients" and ours.values.dtype == np.float32
        assert ours.values.shape == (3, FINDINGS, SIZE // 4, SIZE // 4)
        assert (ours.values > 0).any() and (ours.values < 0).any()
        for finding in range(FINDINGS):
            assert_same_maps(ours, theirs(perceptron, perceptron.features, batch, finding), finding)

    def test_equals_the_evidence_of_a_linear_head(self, linear: Classifier, batch: NDArray[np.uint8]) -> None:
        ours = gradcam.grad_cam(Logits(linear), batch, linear.features)
        assert ours.method == "gradients"
        np.testing.assert_allclose(ours.values, gradcam.grad_cam(linear, batch).values, atol=1e-5)

    def test_map_does_not_depend_on_the_batch(self, perceptron: Perceptron, batch: NDArray[np.uint8]) -> None:
        alone = [
            gradcam.grad_cam(perceptron, batch[[index]], perceptron.features).values for index in range(len(batch))
        ]
        together = gradcam.grad_cam(perceptron, batch, perceptron.features).values
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)

    def test_keeps_the_network_unchanged(self, perceptron: Perceptron, batch: NDArray[np.uint8]) -> None:
        before = {name: tensor.clone() for name, tensor in perceptron.state_dict().items()}
        gradcam.grad_cam(perceptron, batch, perceptron.features)
        assert all(torch.equal(tensor, before[name]) for name, tensor in perceptron.state_dict().items())
        assert all(one.grad is None for one in perceptron.parameters())
        assert not any(module._forward_hooks for module in perceptron.modules())

    def test_frozen_weights_give_the_same_maps(self, perceptron: Perceptron, batch: NDArray[np.uint8]) -> None:
        expected = gradcam.grad_cam(perceptron, batch, perceptron.features).values
        perceptron.requires_grad_(False)
        with torch.no_grad():
            frozen = gradcam.grad_cam(perceptron, batch, perceptron.features).values
        np.testing.assert_array_equal(frozen, expected)

    def test_rejects_missing_or_unsuitable_layer(self, perceptron: Perceptron, batch: NDArray[np.uint8]) -> None:
        with pytest.raises(ValueError, match="Perceptron returns no evidence: its maps need a layer"):
            gradcam.grad_cam(perceptron, batch)
        with pytest.raises(ValueError, match=r"not \[\(3, 4\)\]"):
            gradcam.grad_cam(perceptron, batch, perceptron.head)
        with pytest.raises(ValueError, match=r"not \[\]"):
            gradcam.grad_cam(perceptron, batch, nn.Identity())
        assert not any(module._forward_hooks for module in perceptron.modules())

    def test_in_place_change_of_the_layer_is_an_error(self, batch: NDArray[np.uint8]) -> None:
        network = Perceptron(inplace=True).eval()
        with pytest.raises(RuntimeError, match="in-place"):
            gradcam.grad_cam(network, batch, network.features)


@pytest.mark.parametrize(
    ("probability", "threshold", "expected"),
    [(0.5, 0.5, True), (0.49, 0.5, False), (0.0, 0.0, True), (1.0, None, False), (1.0, nan, False), (nan, 0.1, False)],
)
def test_map_is_shown_from_the_operating_point_upwards(
    probability: float, threshold: float | None, expected: bool
) -> None:
    assert is_shown(probability, threshold) is expected
    assert is_shown(np.float64(probability), threshold) is expected
