"""Runtimes: a network runs in torch on any device, or in OpenVINO on the CPU, to which it is exported once."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from chestai.config import schema
from chestai.errors import UserError
from chestai.lake.user_cache import find_user_cache
from chestai.model.bundle import ForwardOutput, StoredNetwork
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes import torch_runtime
from chestai.model.runtimes.cache import read_parts
from chestai.model.runtimes.precision import Precision, resolve_precision

Engine = Literal["auto", "torch", "openvino"]
Forward = Callable[[NDArray[np.uint8]], ForwardOutput]

__all__ = ["Engine", "Forward", "InferenceSession", "Precision", "Runtime", "exports_folder", "open_session"]


@dataclass(frozen=True)
class Runtime:
    """The engine of a forward pass and its settings.

    Attributes:
        engine: `torch`, on the given device; `openvino`, on the CPU even if there is a GPU; `auto`: OpenVINO if the
            device is a CPU and the network can be exported, else torch.
        precision: Of the forward pass (`chestai.model.runtimes.precision`). Weights, sums and outputs are float32.
        channels_last: Layout of the convolution weights. Activations of `chestai.model.classifier` always have it.
        compiled: Use `torch.compile`, torch only. It needs a C++ compiler and takes minutes for a deep network.
        quantised: The network in int8, from `chestai.model.runtimes.quantisation`; for that precision alone.
    """

    engine: Engine = "torch"
    precision: Precision = "fp32"
    channels_last: bool = True
    compiled: bool = False
    quantised: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, section: schema.Runtime, precision: Precision) -> "Runtime":
        """The runtime of a config in one of its precisions, see `precision.list_candidates`."""
        return cls(section.engine, precision, section.channels_last, section.compile)


@dataclass(frozen=True)
class InferenceSession:
    """A network loaded into a runtime; computes the same as `chestai.model.bundle.forward`, from any thread.

    name: engine and precision, such as `openvino bf16`. size: pixels a side.
    """

    name: str
    size: int
    forward: Forward

    def __call__(self, pixels: NDArray[np.uint8]) -> ForwardOutput:
        """Runs uint8 (N, S, S) from `chestai.imaging.preprocess`, N from 1. Raises ValueError for anything else."""
        size = self.size
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (size, size) or len(pixels) == 0:
            raise ValueError(f"pixels must be uint8 (N, {size}, {size}), N from 1, not {pixels.dtype} {pixels.shape}")
        return self.forward(np.ascontiguousarray(pixels))


def open_session(
    network: Classifier | Ensemble | StoredNetwork,
    runtime: Runtime,
    device: str = "cpu",
    cache: Path | None = None,
    threads: int | None = None,
) -> InferenceSession:
    """Loads a network into a runtime, for any number of images per call.

    The session holds a copy: later changes of the network do not affect it. OpenVINO serves several threads one after
    the other.

    Args:
        network: Of a bundle, a single classifier or an ensemble. A stored one is built only if the runtime needs it:
            for torch, or for its first export.
        device: of torch, `cpu`, `cuda` or `cuda:1`.
        cache: folder of exported networks, made if it is not there; None: `exports_folder()`. What lies there is used
            by any number of processes and may be deleted at any time.
        threads: of the CPU, 1 or more; None: as many as the process has cores. Torch's are set for the whole process,
            and left as they are where this is None.

    Raises:
        UserError: the machine or the network cannot do what the runtime asks for.
        ValueError: threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    size: int = network.card.size if isinstance(network, StoredNetwork) else torch_runtime.classifiers(network)[0].size
    if runtime.engine == "openvino" or (runtime.engine == "auto" and device == "cpu" and not runtime.compiled):
        if runtime.compiled:
            raise UserError("compiled=true is for engine=torch: OpenVINO compiles by itself")
        try:
            return _open_openvino(network, runtime, size, cache or exports_folder(), threads)
        except UserError:  # it cannot be exported
            if runtime.engine == "openvino" or runtime.precision == "int8":
                raise
    place = _place(device)
    precision = resolve_precision(runtime.precision, place)
    if precision == "int8":
        raise UserError("precision=int8 is for OpenVINO: take engine=auto or engine=openvino")
    if threads is not None:
        torch.set_num_threads(threads)
    built = network.built if isinstance(network, StoredNetwork) else network
    answer = torch_runtime.open_session(built, place, precision, runtime.channels_last, runtime.compiled)
    return InferenceSession(f"torch {precision}", size, answer)


def _open_openvino(
    network: Classifier | Ensemble | StoredNetwork, runtime: Runtime, size: int, cache: Path, threads: int | None
) -> InferenceSession:
    from chestai.model.runtimes import openvino_export, openvino_runtime  # here: OpenVINO takes half a second to import

    precision = resolve_precision(runtime.precision, torch.device("cpu"))
    if precision == "int8":
        if runtime.quantised is None:
            raise UserError("precision=int8 needs a network that is quantised: `python -m pipelines.score` does that")
        parts = read_parts(io.BytesIO(runtime.quantised), openvino_export.PARTS)
    else:
        parts = openvino_export.export(network, cache)
    return InferenceSession(f"openvino {precision}", size, openvino_runtime.open_session(parts, precision, threads))


def exports_folder() -> Path:
    """The folder of exported networks: `chestai/exports` in the user's cache."""
    return find_user_cache("exports")


def _place(device: str) -> torch.device:
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device} is not there: torch sees {torch.cuda.device_count()} CUDA GPUs")
    return place
