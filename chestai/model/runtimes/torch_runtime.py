"""The runtime of torch: autocast, memory layout, and on request torch.compile."""

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

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def open_session(
    network: Classifier | Ensemble, device: torch.device, precision: Resolved, channels_last: bool, compiled: bool
) -> "_Eager":
    """A copy of the network on the device, in evaluation mode; see `chestai.model.runtimes.ready`.

    Raises:
        UserError: torch.compile does not work here.
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
    """The one, or a committee's members."""
    return [network] if isinstance(network, Classifier) else [cast(Classifier, one) for one in network.members]


def first_line(error: Exception) -> str:
    """What an exception says first, or its name where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
