"""Initial weights: every form such files come in, and torchvision's own features from torchvision's own weights."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from chestai.errors import UserError
from chestai.model.pretrained.loading import load_pretrained
from tests.chestai.model.weights import MEAN, STD, Tensors, assert_all_taken, floating, fresh, pth, safetensors

HEAD = ("classifier.weight", "classifier.bias")


def randomise_statistics(model: nn.Module) -> nn.Module:
    """Give the model batch statistics that differ from a new model's, so that loading them is seen."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def densenet() -> nn.Module:
    torch.manual_seed(1)
    return randomise_statistics(models.densenet121(weights=None))


def assert_close_for_their_scale(ours: Tensor, theirs: Tensor) -> None:
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, theirs / scale, atol=1e-4, rtol=0)


def chexnet(weights: Tensors, folder: Path) -> Path:
    """As published: wrapped twice, with the names of 2017, no counters, and the optimiser beside it."""
    old = {}
    for name, tensor in weights.items():
        for kind in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{kind}{number}.", f".{kind}.{number}.")
        if tensor.is_floating_point():
            old[f"module.densenet121.{name.replace('classifier.', 'classifier.0.')}"] = tensor
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in old
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}
    path = folder / "model.pth.tar"
    torch.save({"epoch": 5, "best_loss": 0.1, "optimizer": optimizer, "state_dict": old}, path)
    return path


def checkpoint(weights: Tensors, folder: Path) -> Path:
    """As some trainer wraps it: in two dicts and two modules."""
    path = folder / "last.ckpt"
    torch.save({"network": {"weights": {f"model.backbone.{name}": one for name, one in weights.items()}}}, path)
    return path


@pytest.mark.parametrize("form", [pth, safetensors, chexnet, checkpoint])
def test_loads_every_file_format_completely(
    form: Callable[[Tensors, Path], Path], densenet: nn.Module, tmp_path: Path
) -> None:
    weights, network = densenet.state_dict(), fresh()
    loaded = load_pretrained(network, str(form(weights, tmp_path)))
    assert_all_taken(loaded, network, weights)
    heads = [name.rsplit("classifier.", 1)[1].removeprefix("0.") for name in loaded.left_over]
    assert sorted(heads) == ["bias", "weight"]
    assert not loaded.adapted


@pytest.mark.parametrize(
    ("backbone", "theirs"),
    [
        ("densenet121", lambda model, x: model.features(x).relu()),
        ("resnet34", lambda model, x: nn.Sequential(*list(model.children())[:-2])(x)),
        ("resnet50", lambda model, x: nn.Sequential(*list(model.children())[:-2])(x)),
    ],
)
def test_features_equal_torchvision(
    backbone: str, theirs: Callable[[nn.Module, Tensor], Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(2)
    model = randomise_statistics(models.get_model(backbone, weights=None))
    three, one = fresh(backbone), fresh(backbone, channels=1)
    path = str(pth(model.state_dict(), tmp_path))
    grey = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    image = grey[:, None].repeat(1, 3, 1, 1).float() / 255

    assert load_pretrained(three, path).missing == ()
    features: list[Tensor] = []
    three.features.register_forward_hook(lambda module, given, out: features.append(out))
    with torch.no_grad():
        three(grey)
        expected = theirs(model, (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    assert_close_for_their_scale(features[0], expected)

    assert len(load_pretrained(one, path).adapted) == 1
    with torch.no_grad():
        assert_close_for_their_scale(one.backbone(image[:, :1]), theirs(model, image))


def test_grey_stem_is_distributed_over_three_channels(tmp_path: Path) -> None:
    torch.manual_seed(3)
    one, three = fresh("resnet10t", channels=1), fresh("resnet10t")
    loaded = load_pretrained(three, str(pth(one.state_dict(), tmp_path)))
    assert loaded.adapted == ("backbone.conv1.0.weight (24, 1, 3, 3) as (24, 3, 3, 3)",)
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(three.backbone(image.repeat(1, 3, 1, 1)), one.backbone(image), atol=1e-4, rtol=1e-4)


def test_reports_and_keeps_weights_that_do_not_fit(densenet: nn.Module, tmp_path: Path) -> None:
    weights = dict(densenet.state_dict())
    del weights["features.norm5.weight"]
    weights["features.transition1.conv.weight"] = torch.zeros(7, 256, 1, 1)
    weights["surplus"] = torch.zeros(2)
    network = fresh()
    before = {name: tensor.clone() for name, tensor in network.backbone.state_dict().items()}
    loaded = load_pretrained(network, str(pth(weights, tmp_path)))
    assert sorted(loaded.missing) == ["features.norm5.weight", "features.transition1.conv.weight"]
    assert loaded.taken == loaded.total - 2 == len(floating(before)) - 2
    shape = "features.transition1.conv.weight (7, 256, 1, 1) is not (128, 256, 1, 1)"
    assert sorted(loaded.left_over) == sorted([*HEAD, shape, "surplus"])
    for name in loaded.missing:
        assert torch.equal(network.backbone.state_dict()[name], before[name])
    line = loaded.line()
    assert f"{loaded.taken} of the backbone's {loaded.total}" in line and "features.norm5.weight" in line
    assert "\n" not in line


def test_rejects_weights_of_another_network(tmp_path: Path) -> None:
    other = {"encoder.weight": torch.zeros(4, 4), "features.conv0.weight": torch.zeros(5, 5)}
    path = pth(other, tmp_path)
    with pytest.raises(UserError, match=r"none of its 2 tensors fits densenet121.*encoder\.weight.*wanted are feat"):
        load_pretrained(fresh(), str(path))


def test_rejects_weights_that_fit_by_chance(tmp_path: Path) -> None:
    """A ResNet-50 as a sequence of its children: some shapes and ends of names agree with another network's."""
    backbone = nn.Sequential(*list(models.resnet50(weights=None).children())[:-1])
    foreign = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    with pytest.raises(
        UserError, match=r"(only \d+|none) of its \d+ tensors fits resnet50, which has \d+: it has backb"
    ):
        load_pretrained(fresh("resnet50"), str(safetensors(foreign, tmp_path)))


def test_loads_weights_whose_first_word_has_another_name(densenet: nn.Module, tmp_path: Path) -> None:
    named = {
        name.replace("features.", "backbone."): tensor
        for name, tensor in densenet.state_dict().items()
        if name not in HEAD
    }
    network = fresh("densenet121")
    loaded = load_pretrained(network, str(safetensors(named, tmp_path)))
    assert loaded.taken == loaded.total and not loaded.left_over


class Code:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.pth", None, "no such file"),
        ("code.pth", {"state_dict": {"a": torch.zeros(1)}, "extra": Code()}, "needs .*mkdir to be unpickled"),
        ("module.pth", nn.Linear(2, 2), "needs .*Linear to be unpickled"),
        ("text.pth", b"not a checkpoint", "is no checkpoint"),
        ("empty.pth", b"", "is no checkpoint"),
        ("text.safetensors", b"not a checkpoint", "is no checkpoint"),
        ("none.pth", {"epoch": 3}, "none of its 0 tensors fits"),
    ],
)
def test_rejects_file_that_is_not_a_checkpoint_in_one_line(
    name: str, content: object, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=reason) as error:
        load_pretrained(fresh("resnet10t"), name)
    assert f"network.pretrained={name}" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_none_keeps_the_network() -> None:
    network = fresh("resnet10t")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loaded = load_pretrained(network, "none")
    assert loaded.taken == 0 and loaded.total > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_loads_timm_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm loads them as ever, but from a file here in the place of its download."""
    torch.manual_seed(6)
    published = randomise_statistics(timm.create_model("vit_tiny_patch16_224"))
    path = safetensors(published.state_dict(), tmp_path)
    create = timm.create_model

    def from_file(*args: Any, **options: Any) -> nn.Module:
        return create(*args, **(options | {"pretrained_cfg_overlay": {"file": str(path)}}))

    network = fresh("vit_tiny_patch16_224", channels=1)
    monkeypatch.setattr("chestai.model.pretrained.loading._reach", lambda repository: None)
    monkeypatch.setattr(timm, "create_model", from_file)
    loaded = load_pretrained(network, "imagenet")
    assert loaded.source.startswith("timm vit_tiny_patch16_224.") and loaded.missing == ()
    assert loaded.left_over == ("head.weight", "head.bias") and len(loaded.adapted) == 1
    own, theirs = network.backbone.state_dict(), published.state_dict()
    torch.testing.assert_close(own["patch_embed.proj.weight"], theirs["patch_embed.proj.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(own["blocks.3.attn.qkv.weight"], theirs["blocks.3.attn.qkv.weight"])
    assert own["pos_embed"].shape == (1, 17, 192), "timm resampled it from 14 x 14 patches to 4 x 4"
    torch.testing.assert_close(own["pos_embed"][:, 0], theirs["pos_embed"][:, 0])


def test_names_backbone_without_published_weights() -> None:
    assert not timm.list_pretrained("coatnet_nano_cc_224*")
    with pytest.raises(UserError, match=r"timm has no weights for coatnet_nano_cc_224; give a file: network\.pretr"):
        load_pretrained(fresh("coatnet_nano_cc_224"), "imagenet")


def test_offline_download_fails_within_seconds_and_suggests_a_file(tmp_path: Path) -> None:
    script = """
import time
from chestai.errors import UserError
from chestai.model.classifier import Classifier
from chestai.model.pretrained.loading import load_pretrained
network = Classifier("resnet10t", 3, 64, (0.5,), (0.25,))
started = time.monotonic()
try:
    load_pretrained(network, "imagenet")
except UserError as error:
    print(time.monotonic() - started, error)
"""
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | closed, capture_output=True, text=True)
    assert done.stdout, done.stderr
    seconds, message = done.stdout.strip().split(" ", 1)
    assert float(seconds) < 20
    assert message.startswith("network.pretrained=imagenet: ") and "network.pretrained=/path/to" in message
    assert "\n" not in message
