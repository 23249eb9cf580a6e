"""The classifier and its Grad-CAM: one forward gives it all."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from chestai.errors import UserError
from chestai.imaging.heatmap import heatmap, overlay
from chestai.model.classifier import Classifier

FINDINGS = ("Effusion", "Mass", "Pneumothorax")

# One of each family, and the side of its grid of features at 64 pixels.
FAMILIES = {
    "densenet121": 2,
    "resnet34": 2,
    "resnet50": 2,
    "efficientnet_b0": 2,
    "mobilenetv3_small_050": 2,  # wider after its last convolution than timm's num_features
    "regnety_002": 2,
    "convnext_atto": 2,
    "swin_tiny_patch4_window7_224": 2,  # channels last
    "vit_tiny_patch16_224": 4,  # tokens, the class's first
    "vit_small_patch16_dinov3": 4,  # and four registers
    "mixer_s32_224": 2,  # tokens of patches only
    "volo_d1_224": 4,  # a class token that timm does not count as a prefix
}


@pytest.fixture(scope="module")
def network() -> Classifier:
    torch.manual_seed(0)
    network = Classifier("densenet121", len(FINDINGS), 96, mean=(0.5,), std=(0.25,)).eval()
    with torch.no_grad():
        network.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        # Heads at right angles to the mean feature, so that maps have both signs and Grad-CAM's ReLU has work to do.
        noise = np.random.default_rng(0).integers(0, 256, (1, 1, 96, 96))
        mean = network.backbone((torch.from_numpy(noise).float() / 255 - 0.5) / 0.25).mean((0, 2, 3))
        weight = network.head.weight[:, :, 0, 0]
        network.head.weight.copy_((weight - torch.outer(weight @ mean, mean) / mean.dot(mean))[:, :, None, None])
    return network


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)


def test_logits_are_the_mean_of_the_evidence(network: Classifier, batch: np.ndarray) -> None:
    with torch.no_grad():
        logits, evidence, embedding = network(torch.from_numpy(batch))
    assert logits.shape == (3, 3) and evidence.shape == (3, 3, 3, 3)
    torch.testing.assert_close(logits, evidence.mean(dim=(2, 3)) + network.bias)
    torch.testing.assert_close(logits, embedding @ network.head.weight[:, :, 0, 0].T + network.bias)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_backbone_family_has_an_evidence_grid(backbone: str) -> None:
    torch.manual_seed(0)
    network = Classifier(backbone, 3, 64, mean=(0.5,), std=(0.25,))
    with torch.no_grad():
        network.bias.normal_()
    side = FAMILIES[backbone]
    logits, evidence, _ = network(torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8))
    assert logits.shape == (2, 3) and evidence.shape == (2, 3, side, side)
    torch.testing.assert_close(logits, evidence.mean(dim=(2, 3)) + network.bias)
    logits.square().sum().backward()
    without = [name for name, one in network.named_parameters() if one.grad is None]
    assert not without, "distributed training would wait for these"
    first = next(one for one in network.backbone.parameters() if one.ndim == 4)
    assert first.grad is not None and first.grad.abs().max() > 0


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "volo_d1_224"])
def test_features_keep_the_position_of_their_patches(backbone: str) -> None:
    torch.manual_seed(0)
    network = Classifier(backbone, 3, 64, mean=(0.5,), std=(0.25,)).eval()
    options = {"indices": 1, "norm": True, "output_fmt": "NCHW", "intermediates_only": True}
    theirs: list[torch.Tensor] = []
    network.features.register_forward_hook(lambda module, given, out: theirs.append(out))
    pixels = torch.randint(0, 256, (1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        network(pixels)
        image = (pixels[:, None] / 255 - 0.5) / 0.25
        expected = network.backbone.forward_intermediates(image, **options)[-1]  # type: ignore[operator]
    torch.testing.assert_close(theirs[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet34", "vit_tiny_patch16_224"])
def test_three_channel_stem_gets_the_grey_image_in_each_channel(backbone: str, batch: np.ndarray) -> None:
    torch.manual_seed(0)
    three = Classifier(backbone, 3, 96, mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    one = Classifier(backbone, 3, 96, mean=(0.5,), std=(0.25,)).eval()
    weights = three.state_dict()
    stem = next(name for name, shape in one.state_dict().items() if shape.shape != weights[name].shape)
    weights[stem] = weights[stem].sum(dim=1, keepdim=True)
    one.load_state_dict(weights)
    with torch.no_grad():
        ours, theirs = one(torch.from_numpy(batch)).logits, three(torch.from_numpy(batch)).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_each_channel_has_its_own_normalisation(batch: np.ndarray) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = Classifier("resnet10t", 3, 96, mean, std)
    seen: list[torch.Tensor] = []
    network.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network(torch.from_numpy(batch))
    expected = np.stack([(batch / 255 - mean[channel]) / std[channel] for channel in range(3)], axis=1)
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "size", "reason"),
    [
        ("densenet12", 64, "Unknown model"),
        ("crossvit_tiny_240", 64, "pooling"),
        ("pit_ti_224", 64, "no grid"),  # gives its class token alone
    ],
)
def test_rejects_unusable_backbone_in_one_line(backbone: str, size: int, reason: str) -> None:
    with pytest.raises(UserError, match=f"network.backbone={backbone} .*({reason})") as error:
        Classifier(backbone, 3, size, mean=(0.5,), std=(0.25,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("finding", range(len(FINDINGS)))
def test_map_equals_pytorch_grad_cam(network: Classifier, batch: np.ndarray, finding: int) -> None:
    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x[:, 0]).logits

    image = torch.from_numpy(batch[:1]).unsqueeze(1).float()
    with GradCAM(Logits(), [network.features]) as cam:
        theirs = cam(image, [ClassifierOutputTarget(finding)])[0]
    with torch.inference_mode():
        evidence = network(torch.from_numpy(batch[:1])).evidence[0, finding].numpy()
    assert evidence.max() > 0, "an empty map would prove nothing"
    ours = heatmap(evidence, 96, 96)
    stretched = (ours - ours.min()) / np.ptp(ours)  # the library scales a map between its own extremes
    np.testing.assert_allclose(stretched, theirs, atol=1e-5)


def test_map_follows_the_padding_of_a_wide_image() -> None:
    evidence = np.zeros((8, 8), np.float32)
    evidence[3, 6] = 1.0
    cam = heatmap(evidence, height=100, width=200)
    row, column = np.unravel_index(cam.argmax(), cam.shape)
    assert cam.shape == (100, 200)
    assert abs(row - (200 * 3.5 / 8 - 50)) < 6 and abs(column - 200 * 6.5 / 8) < 6


def test_overlay_keeps_the_image_where_the_map_is_empty() -> None:
    import cv2

    grey = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    png = overlay(grey, np.zeros((64, 80), np.float32))
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and np.array_equal(decoded[..., 1], grey)


def test_frozen_backbone_learns_nothing_and_gives_what_it_gave_before(batch: np.ndarray) -> None:
    torch.manual_seed(0)
    network = Classifier("resnet10t", 3, 64, (0.5,), (0.25,), frozen=True)
    pixels = torch.from_numpy(batch[:4])
    with torch.no_grad():
        before = network.eval()(pixels).embedding
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    logits = network(pixels).logits
    logits.sum().backward()
    learning = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    assert learning == ["bias", "head.weight"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items()), "batch statistics"
    torch.testing.assert_close(network(pixels).embedding.detach(), before)
