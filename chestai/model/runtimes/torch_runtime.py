"""The torch runtime: autocast, memory layout, and torch.compile on request."""

from copy import deepcopy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from chestai.errors import UserError
from chestai.model.bundle import ForwardOutput, forward
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes.precision import Resolved

DTYPES: dict[Resolved, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def open_session(
    network: Classifier | Ensemble, device: torch.device, precision: Resolved, channels_last: bool, compiled: bool
) -> "_Eager":
    """Copies the network to the device, in evaluation mode; see `chestai.model.runtimes.open_session`.

    Raises:
        UserError: torch.compile does not work on this machine.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    ours = deepcopy(network).to(device=device, memory_format=layout).eval()  # type: ignore[call-overload]
    if not compiled:
        return _Eager(ours, precision)
    size = classifiers(ours)[0].size
    answer = _Eager(cast(Classifier, torch.compile(ours, dynamic=True)), precision)
    try:
        for images in (2, 1):  # compiled at the first call; a single image is a case of its own
            answer(np.zeros((images, size, size), np.uint8))
    except Exception as error:  # whatever a compiler that is not there, or cannot, objects with
        raise UserError(f"compiled=true does not work here, take compiled=false: {first_line(error)}") from error
    return answer


class _Eager:
    def __init__(self, network: Classifier | Ensemble, precision: Resolved) -> None:
        self.network, self.dtype = network, DTYPES[precision]
        self.device = next(network.parameters()).device.type

    def __call__(self, pixels: NDArray[np.uint8]) -> ForwardOutput:
        with torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype is not None):
            return forward(self.network, pixels)


def classifiers(network: Classifier | Ensemble) -> list[Classifier]:
    """The classifier, or the members of an ensemble."""
    return [network] if isinstance(network, Classifier) else [cast(Classifier, member) for member in network.members]


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its name if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
