"""Loads initial weights of the backbone: timm's, or those of a file in any common form."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from torch import Tensor

from chestai.errors import UserError
from chestai.model.classifier import Classifier, input_size
from chestai.model.pretrained.files import read_tensors
from chestai.model.pretrained.forms import adapt, is_transformer, rename

HUB_FILE = "model.safetensors"
GIVE_A_FILE = "give a file: network.pretrained=/path/to/weights.safetensors"

MIN_TAKEN = 0.5  # of the backbone's tensors: fewer fit by chance, and the network would be random


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
        UserError: There are no such weights, they cannot be fetched or read, they fit less than half of the backbone,
            or lack some of what a transformer or a frozen backbone needs.
    """
    if which == "none":
        return LoadedWeights("random", 0, len(_floating(network.backbone.state_dict())))
    source, tensors = _published(network) if which == "imagenet" else (which, read_tensors(Path(which)))
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


def _fill(network: Classifier, source: str, found: Mapping[str, Tensor]) -> LoadedWeights:
    wanted = _floating(network.backbone.state_dict())
    named = _named_as(network, wanted, found)
    taken, left_over, adapted = set(), [], []
    for name, (target, tensor) in named.items():
        if target not in wanted:
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
    _check_enough(network, source, found, len(taken), missing, left_over)
    return LoadedWeights(source, len(taken), len(wanted), missing, tuple(left_over), tuple(adapted))


def _check_enough(
    network: Classifier,
    source: str,
    found: Mapping[str, Tensor],
    taken: int,
    missing: tuple[str, ...],
    left_over: list[str],
) -> None:
    """Raises UserError if the weights fit by chance, or a network that needs all of them lacks some."""
    key = f"network.pretrained={source}"
    if taken < MIN_TAKEN * (taken + len(missing)):
        few = f"only {taken}" if taken else "none"
        raise UserError(
            f"{key}: {few} of its {len(found)} tensors fits {network.name}, which has {taken + len(missing)}: "
            f"it has {_some(tuple(left_over)) or 'nothing'}; wanted are {_some(missing)}"
        )
    if missing and (network.frozen or is_transformer(network.backbone)):
        why = "network.frozen=true" if network.frozen else f"{network.name} is useless with some of them random"
        raise UserError(
            f"{key} lacks {len(missing)} tensors of {network.name} ({why}): {_some(missing)}; "
            f"left over are {_some(tuple(left_over)) or 'none'}"
        )


def _named_as(
    network: Classifier, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> dict[str, tuple[str, Tensor]]:
    """The tensors by their names as timm knows them, each with the backbone's name for it, or no name."""
    renamed = rename(found)
    prefix, instead = _prefixes(renamed, wanted)
    targets = {name: instead + name.removeprefix(prefix) if name.startswith(prefix) else "" for name in renamed}
    if not is_transformer(network.backbone):
        return {name: (targets[name], tensor) for name, tensor in renamed.items()}
    others = {name: ("", tensor) for name, tensor in renamed.items() if not targets[name]}
    own = adapt(network.backbone, {targets[name]: tensor for name, tensor in renamed.items() if targets[name]})
    return {**others, **{name: (name, tensor) for name, tensor in own.items()}}


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
