"""Files of weights in several forms, and how to check that they were loaded."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from chestai.model.classifier import Classifier
from chestai.model.pretrained.loading import LoadedWeights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Tensors = dict[str, Tensor]


def fresh(backbone: str = "densenet121", channels: int = 3) -> Classifier:
    return Classifier(backbone, 3, 64, MEAN[:channels], STD[:channels]).eval()


def floating(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def assert_all_taken(loaded: LoadedWeights, network: Classifier, source: Tensors) -> None:
    own = floating(network.backbone.state_dict())
    assert (loaded.taken, loaded.total, loaded.missing) == (len(own), len(own), ())
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, source[name], msg=name)


# The forms. Each takes torchvision's state dict and writes a file in another.


def pth(weights: Tensors, folder: Path) -> Path:
    torch.save(weights, folder / "weights.pth")
    return folder / "weights.pth"


def safetensors(weights: Tensors, folder: Path) -> Path:
    save_file(weights, folder / "weights.safetensors")
    return folder / "weights.safetensors"
