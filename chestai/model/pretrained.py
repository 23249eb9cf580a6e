"""Loads initial weights of the backbone: timm's, or those of a file in any common form."""

import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from torch import Tensor

from chestai.errors import UserError
from chestai.model.bundle import CARD, WEIGHTS, read_card
from chestai.model.classifier import Classifier, input_size
from chestai.model.seen_patients import SeenPatients

HUB_FILE = "model.safetensors"
GIVE_A_FILE = "give a file: network.pretrained=/path/to/weights.safetensors"

MIN_TAKEN = 0.5  # of the backbone's tensors: fewer fit by chance, and the network would be random

# DenseNet as torchvision named it before 0.2 (CheXNet's published weights): norm.1 for norm1.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")


@dataclass(frozen=True)
class LoadedWeights:
    """The result of loading initial weights; integer tensors (batch norm's counters) do not count.

    Attributes:
        source: A file, or timm's name of the weights.
        taken: Tensors of the backbone, of `total`, that have the source's values.
        missing: The others, which stay random.
        left_over: Tensors of the source that fit nowhere, such as those of its head; with both shapes if only the
            shapes differ.
        adapted: Tensors taken with another number of input channels.
    """

    source: str
    taken: int
    total: int
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()

    def line(self) -> str:
        """The result in one line, with the first three names of long lists."""
        lists = {"missing": self.missing, "left over": self.left_over, "adapted": self.adapted}
        parts = [f"{len(names)} {kind} ({_some(names)})" for kind, names in lists.items() if names]
        return "; ".join([f"{self.source}: {self.taken} of the backbone's {self.total} tensors taken", *parts])


def load_pretrained(network: Classifier, which: str) -> LoadedWeights:
    """Loads initial weights into the backbone of `network`, in place.

    The head stays random, because a file does not say which findings its head is for, and in what order.

    Args:
        which: `none`, `imagenet` (timm's default weights for this backbone; downloaded), or the path of a file:
            safetensors, or a state dict saved by torch.save, possibly inside another dict.

    Raises:
        UserError: There are no such weights, they cannot be fetched or read, or they fit less than half of the
            backbone.
    """
    if which == "none":
        return LoadedWeights("random", 0, len(_floating(network.backbone.state_dict())))
    source, tensors = _published(network) if which == "imagenet" else (which, _read(Path(which)))
    return _fill(network, source, _floating(tensors))


def find_imagenet(backbone: str, size: int) -> Classifier | None:
    """A network with timm's ImageNet weights for a backbone, if they are in this machine's cache: nothing is fetched.

    Only its embeddings mean something.
    """
    config = timm.get_pretrained_cfg(backbone)
    held = None if config is None else huggingface_hub.try_to_load_from_cache(str(config.hf_hub_id), HUB_FILE)
    if config is None or not isinstance(held, str):
        return None
    network = Classifier(backbone, 1, size, config.mean, config.std)
    _fill(network, held, _floating(load_file(held)))
    return network.to(memory_format=torch.channels_last).eval()


def ancestry(which: str) -> tuple[bool, tuple[SeenPatients, ...]]:
    """The patients that initial weights were trained on: whether they are known, and each training behind the weights.

    They are known of no weights and of ImageNet (nobody), and of a bundle's weights as far as its card knows. Of any
    other file nothing is known.

    Args:
        which: As of `load_pretrained`; the content of a file is not checked.

    Raises:
        UserError: The card beside the weights, or its list of patients, is damaged or missing.
    """
    if which in ("none", "imagenet"):
        return True, ()
    path = Path(which)
    if path.name != WEIGHTS or not (path.parent / CARD).is_file():
        return False, ()
    card, patients = read_card(path.parent)
    return card.split_known, patients


def _published(network: Classifier) -> tuple[str, Mapping[str, Tensor]]:
    config = timm.get_pretrained_cfg(network.name)
    assert config is not None, "a backbone that timm made has a config"
    if not config.has_weights:
        raise UserError(f"network.pretrained=imagenet: timm has no weights for {network.name}; {GIVE_A_FILE}")
    try:
        if config.hf_hub_id is not None:
            _reach(config.hf_hub_id)
        model = timm.create_model(network.name, pretrained=True, **input_size(network.name, network.size))
    except Exception as error:  # from the network, the file system or timm
        reason = " ".join(str(error).split())
        raise UserError(
            f"network.pretrained=imagenet: no weights for {network.name} ({reason}); {GIVE_A_FILE}"
        ) from error
    return f"timm {config.architecture}.{config.tag}", model.state_dict()


def _reach(repository: str) -> None:
    """Checks the connection by one short request, unless cached: the hub's client retries for most of a minute."""
    if isinstance(huggingface_hub.try_to_load_from_cache(repository, HUB_FILE), str):
        return
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, HUB_FILE), timeout=10)
    except HfHubHTTPError:
        return  # the server is there; fetching the weights will report the error


def _read(path: Path) -> Mapping[str, Tensor]:
    """Reads the state dict of a file. Only tensors are read: a file that needs code to be unpickled is rejected."""
    key = f"network.pretrained={path}"
    if not path.is_file():
        raise UserError(f"{key}: no such file; it is imagenet, none, or the path of a file of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"needs {name[1]} to be unpickled" if name else "is no checkpoint"
        raise UserError(f"{key} {reason}, but only tensors are read: save a state_dict() as safetensors") from error
    except Exception as error:  # torch raises anything from KeyError to EOFError for a foreign file
        reason = " ".join(f"{type(error).__name__} {error}".split()).split(". ")[0]
        raise UserError(f"{key} is no checkpoint of tensors ({reason}): save a state_dict() as safetensors") from error
    return max(_state_dicts(content), key=len, default={})


def _state_dicts(content: Any) -> Iterator[Mapping[str, Tensor]]:
    """Every dict of named tensors in a checkpoint; the largest is the network's."""
    if isinstance(content, Mapping):
        yield {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        for value in content.values():
            yield from _state_dicts(value)


def _fill(network: Classifier, source: str, found: Mapping[str, Tensor]) -> LoadedWeights:
    wanted = _floating(network.backbone.state_dict())
    modern = {name: OLD_DENSENET.sub(r"\1\2.", name) for name in found}
    prefix, instead = _prefixes({modern[name]: tensor for name, tensor in found.items()}, wanted)
    taken, left_over, adapted = set(), [], []
    for name, tensor in found.items():
        target = instead + modern[name].removeprefix(prefix)
        if not modern[name].startswith(prefix) or target not in wanted:
            left_over.append(name)
            continue
        shapes = tuple(tensor.shape), tuple(wanted[target].shape)
        fitting = _fitting(tensor, wanted[target])
        if fitting is None:
            left_over.append(f"{name} {shapes[0]} is not {shapes[1]}")
            continue
        wanted[target].copy_(fitting)
        taken.add(target)
        if shapes[0] != shapes[1]:
            adapted.append(f"{name} {shapes[0]} as {shapes[1]}")
    missing = tuple(name for name in wanted if name not in taken)
    if len(taken) < MIN_TAKEN * len(wanted):
        few = f"only {len(taken)}" if taken else "none"
        raise UserError(
            f"network.pretrained={source}: {few} of its {len(found)} tensors fits {network.name}, "
            f"which has {len(wanted)}: it has {_some(tuple(left_over)) or 'nothing'}; wanted are {_some(missing)}"
        )
    return LoadedWeights(source, len(taken), len(wanted), missing, tuple(left_over), tuple(adapted))


def _prefixes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, str]:
    """The shortest prefix (`module.`, `backbone.`, ...) and what to put instead, so that most tensors match.

    Instead of it comes nothing, or the first word that all wanted names share, such as DenseNet's `features.`.
    """
    words = {name.partition(".")[0] + "." for name in wanted}
    matches: Counter[tuple[str, str]] = Counter()
    for name, tensor in found.items():
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            for instead in ("", *(words if len(words) == 1 else ())):
                like = wanted.get(instead + name[start:])
                if like is not None and _fitting(tensor, like) is not None:
                    matches[name[:start], instead] += 1
    return max(matches, key=lambda pair: (matches[pair], -len(pair[0]), -len(pair[1])), default=("", ""))


def _fitting(tensor: Tensor, like: Tensor) -> Tensor | None:
    """A tensor in another's shape, or None: input channels may be summed (3 to 1) or spread (1 to 3).

    Either way a grey image, given to each channel, has the same features as before.
    """
    if tensor.shape == like.shape:
        return tensor
    if tensor.ndim == like.ndim == 4 and {tensor.shape[1], like.shape[1]} == {1, 3}:
        grey = tensor.sum(dim=1, keepdim=True)
        other = grey if like.shape[1] == 1 else (grey / 3).expand(-1, 3, -1, -1)
        return other if other.shape == like.shape else None
    return None


def _floating(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
