"""A network made ready to answer: in torch on any device, or on the CPU by OpenVINO, to which it is exported once."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from chestai.config import schema
from chestai.errors import UserError
from chestai.model.bundle import ForwardOutput
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes import torch_runtime
from chestai.model.runtimes.precision import Precision, resolve_precision

Engine = Literal["auto", "torch", "openvino"]
Forward = Callable[[NDArray[np.uint8]], ForwardOutput]

__all__ = ["Engine", "Forward", "Precision", "Ready", "Runtime", "exports", "ready"]


@dataclass(frozen=True)
class Runtime:
    """What computes, and how.

    engine: `torch`, on the device given; `openvino`, on the CPU whatever else there is; `auto`: OpenVINO where the
        device is a CPU and the network can be exported, else torch.
    precision: of the forward pass (`model.runtimes.precision`). Weights, sums and answers are float32 in all of them.
    channels_last: lay out convolution weights so. Activations of `chestai.model.classifier` are so in any case.
    compiled: by `torch.compile`, torch only. It needs a C++ compiler, and takes minutes for a deep network.
    """

    engine: Engine = "torch"
    precision: Precision = "fp32"
    channels_last: bool = True
    compiled: bool = False

    @classmethod
    def of(cls, section: schema.Runtime) -> "Runtime":
        """As the config says."""
        return cls(section.engine, section.precision, section.channels_last, section.compile)


@dataclass(frozen=True)
class InferenceSession:
    """A network that answers like `chestai.model.bundle.forward`; several threads may call it.

    name: engine and precision, such as `openvino bf16`.
    """

    name: str
    size: int
    forward: Forward

    def __call__(self, pixels: NDArray[np.uint8]) -> ForwardOutput:
        """`uint8` (N, S, S) from `chestai.imaging.preprocess`, N from 1 up. Raises ValueError at anything else."""
        size = self.size
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (size, size) or len(pixels) == 0:
            raise ValueError(f"pixels must be uint8 (N, {size}, {size}), N from 1, not {pixels.dtype} {pixels.shape}")
        return self.forward(np.ascontiguousarray(pixels))


def open_session(
    network: Classifier | Ensemble,
    runtime: Runtime,
    device: str = "cpu",
    cache: Path | None = None,
    threads: int | None = None,
) -> InferenceSession:
    """The network ready for any number of images from one up, at any time another number.

    It takes a copy: the network stays as it is, and what becomes of it later changes no answer. By OpenVINO several
    threads are answered one after the other.

    Args:
        network: of a bundle; a committee is one network like any other.
        device: of torch, `cpu`, `cuda` or `cuda:1`.
        cache: folder of exported networks, made if it is not there; None: `exports()`. What lies there is used by any
            number of processes and may be deleted at any time.
        threads: of the CPU, 1 or more; None: as many as the process has cores. Torch's are set for the whole process,
            and left as they are where this is None.

    Raises:
        UserError: the machine or the network cannot do what the runtime asks for.
        ValueError: threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    size = torch_runtime.classifiers(network)[0].size
    if runtime.engine == "openvino" or (runtime.engine == "auto" and device == "cpu" and not runtime.compiled):
        if runtime.compiled:
            raise UserError("compiled=true is for engine=torch: OpenVINO compiles by itself")
        precision = resolve_precision(runtime.precision, torch.device("cpu"))
        from chestai.model.runtimes import openvino_runtime  # here, for OpenVINO takes half a second to import

        try:
            return InferenceSession(
                f"openvino {precision}",
                size,
                openvino_runtime.open_session(network, precision, cache or can_export(), threads),
            )
        except UserError:  # it cannot be exported
            if runtime.engine == "openvino":
                raise
    place = _place(device)
    precision = resolve_precision(runtime.precision, place)
    if threads is not None:
        torch.set_num_threads(threads)
    answer = torch_runtime.open_session(network, place, precision, runtime.channels_last, runtime.compiled)
    return InferenceSession(f"torch {precision}", size, answer)


def can_export() -> Path:
    """Where this machine keeps exported networks: `chestai/exports` in the user's cache (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chestai" / "exports"


def _place(device: str) -> torch.device:
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device} is not there: torch sees {torch.cuda.device_count()} CUDA GPUs")
    return place
