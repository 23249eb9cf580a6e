"""Reads the tensors of a file of weights. Only tensors are read: a file that needs code to be unpickled is refused."""

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from chestai.errors import UserError

PUBLISHED = ("none", "imagenet")  # instead of a file


def check_weights(which: str) -> None:
    """Checks that initial weights are named, or that their file exists.

    Raises:
        UserError: There is no such file.
    """
    if which not in PUBLISHED and not Path(which).is_file():
        raise UserError(
            f"network.pretrained={which}: no such file; it is imagenet, none, or the path of a file of weights"
        )


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """The state dict of a safetensors file, or the largest one in a file of torch.save.

    Raises:
        UserError: There is no such file, or it holds something other than tensors.
    """
    key = f"network.pretrained={path}"
    check_weights(str(path))
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
