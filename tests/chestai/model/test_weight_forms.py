"""Weights of foundation models in the forms in which they are published: made-up files of the same names and shapes."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.lake.snapshot import Snapshot
from chestai.model.classifier import Classifier
from chestai.model.pretrained.loading import load_pretrained
from pipelines.training.build import build_network
from tests.chestai.model.weights import Tensors, pth, safetensors

GREY = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def build(backbone: str, size: int = 64, **options: bool) -> Classifier:
    return Classifier(backbone, 3, size, (0.5,), (0.25,), **options).eval()


def random_weights(model: nn.Module) -> Tensors:
    """The model's names and shapes with values that differ everywhere, gains near 1."""
    torch.manual_seed(7)
    return {
        name: 0.02 * torch.randn_like(tensor) + (tensor.ndim == 1 and name.endswith("weight"))
        for name, tensor in model.state_dict().items()
    }


def grid_of(model: nn.Module, mean: float = 0.5, std: float = 0.25) -> Tensor:
    """The patch tokens of a timm transformer for the grey images, given to its three channels."""
    with torch.no_grad():
        image = ((GREY[:, None].float() / 255 - mean) / std).repeat(1, 3, 1, 1)
        return model.eval().forward_features(image)[:, 1:]  # type: ignore[operator]


def features_of(network: Classifier) -> Tensor:
    """The same of our network, which has one input channel."""
    kept: list[Tensor] = []
    network.features.register_forward_hook(lambda module, given, out: kept.append(out))
    with torch.no_grad():
        network(GREY)
    return kept[0].flatten(2).transpose(1, 2)


# Medical-MAE: timm's names, beside them what only reconstruction needs; or, fine-tuned, a head behind another norm.


def mae(folder: Path) -> tuple[Path, nn.Module]:
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
    weights = random_weights(model)
    model.load_state_dict(weights)
    decoder = {
        "mask_token": torch.zeros(1, 1, 64),
        "decoder_pos_embed": torch.zeros(1, 17, 64),
        "decoder_embed.weight": torch.zeros(64, 192),
        "decoder_blocks.0.norm1.weight": torch.ones(64),
        "decoder_pred.bias": torch.zeros(768),
    }
    torch.save({"model": weights | decoder, "epoch": 799}, folder / "vit_mae.pth")
    return folder / "vit_mae.pth", model


def mae_under_a_prefix(folder: Path) -> tuple[Path, nn.Module]:
    model = mae(folder)[1]
    weights = {f"module.encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    return safetensors(weights, folder), model


# EVA-X: EVA-02's own names, of masked image modelling. SwiGLU's two halves are one matrix in the small networks and
# two in the base one, whose queries, keys and values are three.


def eva_x(name: str) -> Callable[[Path], tuple[Path, nn.Module]]:
    def write(folder: Path) -> tuple[Path, nn.Module]:
        model = build(name).backbone
        weights = random_weights(model)
        model.load_state_dict(weights)
        named = dict(weights)
        if "base" in name:
            swaps = {"mlp.norm": "mlp.ffn_ln", "mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2", "mlp.fc2": "mlp.w3"}
            swaps |= {"q_proj.bias": "q_bias", "v_proj.bias": "v_bias"}
        else:
            swaps = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"}
        for ours, theirs in swaps.items():
            named = {key.replace(ours, theirs): tensor for key, tensor in named.items()}
        named["patch_embed.proj.weight"] = (named["patch_embed.proj.weight"] / 3).repeat(1, 3, 1, 1)
        only_theirs = {
            "mask_token": torch.zeros(1, 1, 8),
            "lm_head.weight": torch.zeros(512, 8),
            "rope.freqs_cos": torch.zeros(196, 64),
        }
        return pth({"module": named | only_theirs}, folder), model  # type: ignore[dict-item]

    write.__name__ = name
    return write


# RAD-DINO: DINOv2 as Hugging Face names it, and as DINOv2 does itself.


def to_hugging_face(weights: Tensors) -> Tensors:
    """DINOv2's names -> those of Dinov2Model, by its documented layout."""
    named: Tensors = {"embeddings.mask_token": torch.zeros(1, 192)}
    whole = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
    for name, tensor in weights.items():
        if name in whole:
            named[whole[name]] = tensor
        elif match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                named[f"encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = value.contiguous()
        else:
            name = re.sub(r"^patch_embed\.proj", "embeddings.patch_embeddings.projection", name)
            name = re.sub(r"^norm\.", "layernorm.", name)
            name = re.sub(r"^blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense", name)
            name = re.sub(r"^blocks\.(\d+)\.ls([12])\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1", name)
            named[re.sub(r"^blocks\.", "encoder.layer.", name)] = tensor
    return named


DINO = "vit_small_patch14_dinov2"  # RAD-DINO is the base one, of the same layout


def dino(folder: Path) -> tuple[Path, nn.Module]:
    model = timm.create_model(DINO, img_size=56, num_classes=0)
    weights = random_weights(model)
    model.load_state_dict(weights)
    return safetensors(weights | {"mask_token": torch.zeros(1, 384)}, folder), model


def dino_of_hugging_face(folder: Path) -> tuple[Path, nn.Module]:
    model = dino(folder)[1]
    return safetensors(to_hugging_face({**model.state_dict()}), folder), model


@pytest.mark.parametrize(
    ("backbone", "form"),
    [
        ("vit_tiny_patch16_224", mae),
        ("vit_tiny_patch16_224", mae_under_a_prefix),
        ("eva_x_tiny_patch16", eva_x("eva_x_tiny_patch16")),
        ("eva_x_base_patch16", eva_x("eva_x_base_patch16")),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_features_equal_those_of_the_published_form(
    backbone: str, form: Callable[[Path], tuple[Path, nn.Module]], tmp_path: Path
) -> None:
    path, original = form(tmp_path)
    network = build(backbone)
    loaded = load_pretrained(network, str(path))
    assert loaded.missing == () and loaded.taken == loaded.total
    with torch.no_grad():
        if backbone.startswith("eva"):
            image = (GREY[:, None].float() / 255 - 0.5) / 0.25
            expected = original.eval().forward_features(image)[:, 1:]  # type: ignore[operator]
        else:
            expected = grid_of(original)
    torch.testing.assert_close(features_of(network), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", [dino, dino_of_hugging_face])
def test_features_equal_those_of_dinov2(form: Callable[[Path], tuple[Path, nn.Module]], tmp_path: Path) -> None:
    path, original = form(tmp_path)
    network = build(DINO, 56)
    loaded = load_pretrained(network, str(path))
    assert loaded.missing == () and loaded.taken == loaded.total
    with torch.no_grad():
        image = (GREY[:, None, :56, :56].float() / 255 - 0.5) / 0.25
        expected = original.eval().forward_features(image.repeat(1, 3, 1, 1))[:, 1:]  # type: ignore[operator]
        kept: list[Tensor] = []
        network.features.register_forward_hook(lambda module, given, out: kept.append(out))
        network(GREY[:, :56, :56])
    torch.testing.assert_close(kept[0].flatten(2).transpose(1, 2), expected, atol=1e-4, rtol=1e-4)


def test_positions_are_resampled_to_another_size(tmp_path: Path) -> None:
    path, original = mae(tmp_path)
    network = build("vit_tiny_patch16_224", 96)
    assert load_pretrained(network, str(path)).missing == ()
    ours, theirs = network.backbone.pos_embed, original.pos_embed
    assert isinstance(ours, Tensor) and isinstance(theirs, Tensor) and ours.shape == (1, 37, 192)
    torch.testing.assert_close(ours[:, 0], theirs[:, 0])
    grid = theirs[:, 1:].reshape(1, 4, 4, 192).permute(0, 3, 1, 2)
    expected = functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(ours[:, 1:], expected.permute(0, 2, 3, 1).flatten(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "size", "reason"),
    [
        ("vit_small_patch16_224", 64, r"fits vit_small_patch16_224, which has"),
        ("densenet121", 64, r"none of its \d+ tensors fits densenet121"),
    ],
)
def test_weights_of_another_shape_or_network_are_refused(backbone: str, size: int, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as error:
        load_pretrained(build(backbone, size), str(mae(tmp_path)[0]))
    assert "\n" not in str(error.value)


def test_transformer_that_lacks_a_block_is_refused(tmp_path: Path) -> None:
    weights = {name: one for name, one in mae(tmp_path)[1].state_dict().items() if not name.startswith("blocks.11.")}
    with pytest.raises(UserError, match=r"lacks 12 tensors of vit_tiny_patch16_224 .*blocks\.11\."):
        load_pretrained(build("vit_tiny_patch16_224"), str(safetensors(weights, tmp_path)))


def test_frozen_backbone_takes_no_random_weights(tmp_path: Path) -> None:
    weights = dict(build("resnet10t").backbone.state_dict())
    del weights["layer4.0.conv1.weight"]
    path = str(pth(weights, tmp_path))
    assert load_pretrained(build("resnet10t"), path).missing == ("layer4.0.conv1.weight",)
    with pytest.raises(UserError, match=r"lacks 1 tensors of resnet10t \(network\.frozen=true\): layer4\.0\.conv1"):
        load_pretrained(build("resnet10t", frozen=True), path)


@pytest.mark.parametrize("backbone", ["eva_x_small_patch16", "vit_tiny_patch16_224"])
def test_maps_of_a_transformer_are_those_of_its_patches(backbone: str) -> None:
    output = build(backbone)(GREY)
    assert output.evidence.shape == (2, 3, 4, 4)
    torch.testing.assert_close(output.logits, output.evidence.mean((2, 3)))


def grey_densenet() -> nn.Module:
    """torchvision's DenseNet-121 with one input channel and 18 outputs, of which torchxrayvision's is a copy."""
    model = models.densenet121(weights=None, num_classes=18)
    model.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return model


def torchxrayvisions_own() -> nn.Module:
    package = pytest.importorskip("torchxrayvision", reason="torchxrayvision is not installed")
    return package.models.DenseNet(weights=None, num_classes=18, in_channels=1)


@pytest.mark.parametrize("make", [grey_densenet, torchxrayvisions_own])
def test_features_equal_torchxrayvision_over_its_pixel_scale(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = make().eval()
    for layer in original.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    extra = {"op_threshs": torch.full((18,), 0.5)}
    path = pth({**original.state_dict(), **extra}, tmp_path)
    words = ["network.normalisation=torchxrayvision", "network.size=64", f"network.pretrained={path}"]
    config = conf.load(words)
    network = build_network(config, cast(Snapshot, SimpleNamespace(vocabulary=("Mass", "Nodule"))))
    loaded = load_pretrained(network.eval(), str(path))
    assert loaded.missing == () and sorted(loaded.left_over) == ["classifier.bias", "classifier.weight", "op_threshs"]
    with torch.no_grad():
        pixels = (2 * GREY[:, None].float() / 255 - 1) * 1024  # torchxrayvision.utils.normalize
        expected = functional.relu(original.features(pixels)).mean((2, 3))  # type: ignore[operator]
        found = network(GREY).embedding
    torch.testing.assert_close(found / expected.max(), expected / expected.max(), atol=1e-4, rtol=0)
