"""Runtimes for inference: torch on any device, or OpenVINO on the CPU, for which a network is exported once."""

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
from chestai.model.ensemble import Ensemble, list_classifiers
from chestai.model.runtimes import torch_runtime
from chestai.model.runtimes.precision import Precision, resolve_precision

Engine = Literal["auto", "torch", "openvino"]
Forward = Callable[[NDArray[np.uint8]], ForwardOutput]

__all__ = ["Engine", "Forward", "InferenceSession", "Precision", "Runtime", "get_export_folder", "open_session"]


@dataclass(frozen=True)
class Runtime:
    """The engine of a forward pass and its settings.

    Attributes:
        engine: `torch` runs on the given device, `openvino` on the CPU even if there is a GPU. `auto` is OpenVINO if
            the device is a CPU and the network can be exported, else torch.
        precision: Of the forward pass (`chestai.model.runtimes.precision`). Weights, sums and outputs are float32.
        channels_last: Layout of the convolution weights. Activations of `chestai.model.classifier` always have it.
        compiled: Use `torch.compile`, torch only. It needs a C++ compiler and takes minutes for a deep network.
    """

    engine: Engine = "torch"
    precision: Precision = "fp32"
    channels_last: bool = True
    compiled: bool = False

    @classmethod
    def of(cls, section: schema.Runtime) -> "Runtime":
        """The runtime of a config."""
        return cls(section.engine, section.precision, section.channels_last, section.compile)


@dataclass(frozen=True)
class InferenceSession:
    """A network loaded into a runtime. Computes the same as `chestai.model.bundle.forward`; any thread may call it.

    name: engine and precision, such as `openvino bf16`. size: pixels a side.
    """

    name: str
    size: int
    forward: Forward

    def __call__(self, pixels: NDArray[np.uint8]) -> ForwardOutput:
        """Runs uint8 (N, S, S) from `chestai.imaging.preprocess`, N 1 or more. Raises ValueError for anything else."""
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
    """Loads a network into a runtime, for any number of images per call.

    The session holds a copy: later changes of the network do not affect it. OpenVINO serves several threads one after
    the other.

    Args:
        network: The network of a bundle.
        device: The device for torch: `cpu`, `cuda` or `cuda:1`.
        cache: Folder of exported networks, created if needed; by default `get_export_folder()`. Any number of processes
            may share it, and its files may be deleted at any time.
        threads: CPU threads, 1 or more. By default, OpenVINO uses as many as the process has cores, and torch's number
            stays as it is. A number given for torch applies to the whole process.

    Raises:
        UserError: The machine or the network does not support this runtime.
        ValueError: threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    size = list_classifiers(network)[0].size
    if runtime.engine == "openvino" or (runtime.engine == "auto" and device == "cpu" and not runtime.compiled):
        if runtime.compiled:
            raise UserError("compiled=true is for engine=torch: OpenVINO compiles by itself")
        precision = resolve_precision(runtime.precision, torch.device("cpu"))
        from chestai.model.runtimes import openvino_runtime  # OpenVINO takes half a second to import

        try:
            return InferenceSession(
                f"openvino {precision}",
                size,
                openvino_runtime.open_session(network, precision, cache or get_export_folder(), threads),
            )
        except UserError:  # the network cannot be exported
            if runtime.engine == "openvino":
                raise
    torch_device = _parse_device(device)
    precision = resolve_precision(runtime.precision, torch_device)
    if threads is not None:
        torch.set_num_threads(threads)
    session = torch_runtime.open_session(network, torch_device, precision, runtime.channels_last, runtime.compiled)
    return InferenceSession(f"torch {precision}", size, session)


def get_export_folder() -> Path:
    """Returns the folder of exported networks: `chestai/exports` in the user's cache (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chestai" / "exports"


def _parse_device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name} does not exist: torch sees {torch.cuda.device_count()} CUDA GPUs")
    return device
